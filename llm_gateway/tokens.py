"""Input tokens: estimated, counted by the model's service, and kept within a limit by leaving out the oldest turns."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, IonError
from llm_gateway.generation import Prompt, PromptTooLarge, Role, Turn
from llm_gateway.shared_call import SharedCall

MAX_KNOWN_COUNTS: Final = 1000
# Calls to the model's service to fit one prompt: the whole, a guess, and two that correct it.
MAX_COUNTS: Final = 4
# The share of a request's time that counting may take; what is left is the reply's.
COUNT_SHARE: Final = 0.2
# Marks around a turn; those of Google's open models are 5.
_TURN_TOKENS: Final = 8

# Counts the input tokens of a prompt for a model, within so many seconds. Raises IonError.
Count = Callable[[str, Prompt, float], Awaitable[int]]


def estimate_prompt_tokens(prompt: Prompt) -> int:
    return estimate_tokens(prompt.system_instruction) + sum(estimate_tokens(turn.text) for turn in prompt.turns)


def estimate_tokens(text: str) -> int:
    """A token for each 4 ASCII characters and each 2 others (Korean), rounded up: what Gemini comes to, roughly."""
    ascii_characters = len(text.encode("ascii", "ignore"))
    return -(-ascii_characters // 4) - (-(len(text) - ascii_characters) // 2)


def most_prompt_tokens(prompt: Prompt) -> int:
    """No prompt has more: a token stands for at least one byte."""
    return _most_tokens(prompt.system_instruction) + sum(_most_tokens(turn.text) for turn in prompt.turns)


def _is_far_below(prompt: Prompt, limit: int) -> bool:
    """By lengths alone, since no character has more than four bytes."""
    characters = len(prompt.system_instruction) + sum(len(turn.text) for turn in prompt.turns)
    return 4 * characters + (1 + len(prompt.turns)) * _TURN_TOKENS <= limit


def _most_tokens(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass")) + _TURN_TOKENS


def plan_cut(turns: Sequence[Turn], counts: Sequence[float], room: float) -> int | None:
    """How many of the oldest turns to leave out, at least, so that the others have at most `room` tokens and begin with
    the user's; 0 where all fit, whoever begins. None where the last turn alone has more."""
    cut, total = None, 0.0
    for index in reversed(range(len(turns))):
        total += counts[index]
        if total > room:
            break
        if _may_begin(turns, index):
            cut = index
    return cut


def _may_begin(turns: Sequence[Turn], index: int) -> bool:
    return index == 0 or turns[index].role is Role.USER


class CutSearch:
    """Looks for the least cut that fits: `next_cut` says which to count, `learn` takes the count, `decide` ends it,
    whenever. Estimates say how the tokens are spread, counts how many there are."""

    def __init__(self, prompt: Prompt, limit: int) -> None:
        self._turns = prompt.turns
        self._limit = limit
        self._system = estimate_tokens(prompt.system_instruction)
        self._estimates = [estimate_tokens(turn.text) for turn in prompt.turns]
        self._ratio = 1.0
        self._counts_left = MAX_COUNTS
        self._over = -1  # the greatest cut that is known not to fit
        self._fitting: int | None = None  # the least cut that is known to fit

    def next_cut(self) -> int | None:
        """None where another count would not help."""
        if self._counts_left == MAX_COUNTS:
            return 0
        if self._counts_left == 0:
            return None
        cut = self._guess()
        if self._fitting is not None:
            return self._before(self._fitting, cut)
        return self._last if cut is None or self._counts_left == 1 else cut

    def learn(self, cut: int, tokens: int) -> None:
        """Raises PromptTooLarge where the last turn alone does not fit."""
        self._counts_left -= 1
        self._ratio = tokens / max(1, self._system + sum(self._estimates[cut:]))
        if tokens <= self._limit:
            self._fitting = cut
        elif cut == self._last:
            raise PromptTooLarge(tokens, self._limit)
        else:
            self._over = cut

    def decide(self) -> int:
        """Raises PromptTooLarge, by the estimate, where nothing could be counted and the last turn alone has more."""
        if self._fitting is not None:
            return self._fitting
        cut = self._guess()
        if cut is None:
            tokens = round(self._ratio * (self._system + self._estimates[self._last]))
            raise PromptTooLarge(max(tokens, self._limit + 1), self._limit)
        return cut

    @property
    def _last(self) -> int:
        return len(self._turns) - 1

    def _guess(self) -> int | None:
        return plan_cut(self._turns, self._estimates, self._limit / max(self._ratio, 1e-9) - self._system)

    def _before(self, fitting: int, guess: int | None) -> int | None:
        """A lesser cut to try: the guess, or halfway where the counts have shown that it is none."""
        if guess is not None and guess > self._over:
            return guess if guess < fitting else None
        halfway = range((self._over + fitting + 1) // 2, fitting)
        return next((index for index in halfway if _may_begin(self._turns, index)), None)


class TokenCounter:
    """Counts, and what was counted lately. Concurrent equal counts share one call."""

    def __init__(self, count: Count, *, max_known: int = MAX_KNOWN_COUNTS) -> None:
        self._count = count
        self._max_known = max_known
        self._known: OrderedDict[bytes, int] = OrderedDict()
        self._under_way: dict[bytes, SharedCall[int]] = {}

    async def count(self, model: str, prompt: Prompt, deadline: Deadline) -> int:
        """Raises as the call to the model's service does, or DeadlineExceeded. Cancelling it cancels that call, unless
        others wait for it."""
        key = _digest(model, prompt)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        shared = self._under_way.get(key)
        if shared is None:
            return await self._start(key, model, prompt, deadline).join(deadline)
        try:
            return await shared.join(deadline)
        except DeadlineExceeded:
            if deadline.remaining_seconds() <= 0:
                raise
        return await self.count(model, prompt, deadline)  # whoever started that one had less time

    async def fit(self, model: str, prompt: Prompt, limit: int, deadline: Deadline) -> tuple[Prompt, int]:
        """The prompt within `limit` input tokens, 0 for no limit, and how many of its oldest turns were left out. What
        is left begins with the user's turn; instructions and last turn are kept as they are. Where the tokens cannot be
        counted in a share of the deadline, the estimate decides. Raises PromptTooLarge."""
        if not limit or _is_far_below(prompt, limit) or most_prompt_tokens(prompt) <= limit:
            return prompt, 0
        within = Deadline.after(COUNT_SHARE * deadline.remaining_seconds())
        search = CutSearch(prompt, limit)
        while (cut := search.next_cut()) is not None:
            try:
                tokens = await self.count(model, _without_oldest(prompt, cut), within)
            except IonError:
                break
            search.learn(cut, tokens)
        cut = search.decide()
        return _without_oldest(prompt, cut), cut

    def _start(self, key: bytes, model: str, prompt: Prompt, deadline: Deadline) -> SharedCall[int]:
        def end() -> None:
            if self._under_way.get(key) is shared:
                del self._under_way[key]

        async def count() -> int:
            tokens = await self._count(model, prompt, deadline.remaining_seconds())
            self._keep(key, tokens)
            return tokens

        shared = self._under_way[key] = SharedCall(count, end)
        return shared

    def _keep(self, key: bytes, tokens: int) -> None:
        self._known[key] = tokens
        if len(self._known) > self._max_known:
            self._known.popitem(last=False)


def _without_oldest(prompt: Prompt, cut: int) -> Prompt:
    return replace(prompt, turns=prompt.turns[cut:]) if cut else prompt


def _digest(model: str, prompt: Prompt) -> bytes:
    """What is counted, without keeping it: texts do not stay in memory for this."""
    digest = hashlib.blake2b(digest_size=16)
    turns = (part for turn in prompt.turns for part in (turn.role.value, turn.text))
    for part in (model, prompt.system_instruction, *turns):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.digest()
