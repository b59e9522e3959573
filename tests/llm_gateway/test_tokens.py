"""Tokens: counted once, and prompts kept within a limit by leaving out what is oldest."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded
from ion.error.v1.reason_pb2 import Reason
from llm_gateway.generation import ModelUnavailable, Prompt, PromptTooLarge, Role, Turn
from llm_gateway.tokens import (
    COUNT_SHARE,
    MAX_COUNTS,
    CutSearch,
    TokenCounter,
    estimate_prompt_tokens,
    estimate_tokens,
    most_prompt_tokens,
    plan_cut,
)
from tests.llm_gateway.scripted_backend import until

USER, MODEL = Role.USER, Role.MODEL


def prompt_of(*texts: str, system: str = "You are Lua.") -> Prompt:
    """Turns by user and model in alternation, the last by the user."""
    roles = [USER if (len(texts) - number) % 2 else MODEL for number in range(len(texts))]
    return Prompt(system, tuple(Turn(role, text) for role, text in zip(roles, texts, strict=True)))


class Service:
    """Counts by a law; while held, calls wait within their time."""

    def __init__(self, law=estimate_prompt_tokens) -> None:
        self.law = law
        self.calls: list[tuple[str, Prompt, float]] = []
        self.cancelled = 0
        self.error: Exception | None = None
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def count(self, model: str, prompt: Prompt, timeout_seconds: float) -> int:
        self.calls.append((model, prompt, timeout_seconds))
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._open.wait()
        except TimeoutError:
            raise DeadlineExceeded from None
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return self.law(prompt)


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def counter(service):
    return TokenCounter(service.count)


def soon() -> Deadline:
    return Deadline.after(5.0)


# Estimates


@given(st.text())
def test_estimate_is_never_above_the_most_that_there_can_be(text):
    assert 0 <= estimate_tokens(text) <= len(text.encode("utf-8", "surrogatepass"))
    prompt = prompt_of(text or "x", system=text)
    assert estimate_prompt_tokens(prompt) <= most_prompt_tokens(prompt)


def test_estimate_tells_korean_from_english():
    assert estimate_tokens("abcdefgh") == 2
    assert estimate_tokens("abcdefghi") == 3
    assert estimate_tokens("가나다") == 2
    assert estimate_tokens("") == 0


# Cutting by known counts

roles = st.lists(st.sampled_from(Role), max_size=12).map(lambda some: [*some, USER])


@st.composite
def histories(draw):
    turns = [Turn(role, f"{number}") for number, role in enumerate(draw(roles))]
    counts = draw(st.lists(st.integers(0, 50), min_size=len(turns), max_size=len(turns)))
    return turns, counts


@given(histories(), st.integers(-10, 400))
def test_cut_leaves_out_no_more_and_no_less_than_it_must(history, room):
    turns, counts = history
    cut = plan_cut(turns, counts, room)
    allowed = [index for index, turn in enumerate(turns) if index == 0 or turn.role is USER]
    fitting = [index for index in allowed if sum(counts[index:]) <= room]
    assert cut == min(fitting, default=None)


# Looking for the cut


@st.composite
def counted_prompts(draw):
    """A prompt, and what its parts have in truth, which is no more than their bytes."""
    turns = tuple(Turn(role, "x" * draw(st.integers(1, 60))) for role in draw(roles))
    truth = [draw(st.integers(0, len(turn.text))) for turn in turns]
    system = "s" * draw(st.integers(0, 60))
    return Prompt(system, turns), draw(st.integers(0, len(system))), truth


def searched(prompt: Prompt, limit: int, tokens_from) -> tuple[int, int]:
    search, counts = CutSearch(prompt, limit), 0
    while (cut := search.next_cut()) is not None:
        search.learn(cut, tokens_from(cut))
        counts += 1
    return search.decide(), counts


@given(counted_prompts(), st.integers(1, 500))
def test_search_never_exceeds_the_limit_and_refuses_only_what_cannot_fit(counted, limit):
    prompt, system, truth = counted
    try:
        cut, counts = searched(prompt, limit, lambda at: system + sum(truth[at:]))
    except PromptTooLarge:
        assert system + truth[-1] > limit
        return
    assert system + sum(truth[cut:]) <= limit
    assert cut == 0 or prompt.turns[cut].role is USER
    assert cut == 0 or system + sum(truth) > limit
    assert counts <= MAX_COUNTS


@given(counted_prompts(), st.integers(1, 500), st.integers(1, 4))
def test_search_leaves_out_no_more_than_it_must_where_the_estimate_is_in_proportion(counted, limit, ratio):
    prompt, _, _ = counted
    system = ratio * estimate_tokens(prompt.system_instruction)
    truth = [ratio * estimate_tokens(turn.text) for turn in prompt.turns]
    least = plan_cut(prompt.turns, truth, limit - system)
    if least is None:
        with pytest.raises(PromptTooLarge):
            searched(prompt, limit, lambda at: system + sum(truth[at:]))
    else:
        assert searched(prompt, limit, lambda at: system + sum(truth[at:]))[0] == least


@given(counted_prompts(), st.integers(1, 500), st.integers(0, MAX_COUNTS))
def test_search_can_end_after_any_count(counted, limit, most_counts):
    prompt, system, truth = counted
    search = CutSearch(prompt, limit)
    try:
        for _ in range(most_counts):
            cut = search.next_cut()
            if cut is None:
                break
            search.learn(cut, system + sum(truth[cut:]))
        cut = search.decide()
    except PromptTooLarge:
        return
    assert 0 <= cut < len(prompt.turns)
    assert cut == 0 or prompt.turns[cut].role is USER


def test_search_corrects_a_guess_that_the_tokens_belie():
    """The newer turns have many more tokens than they look like."""
    prompt = prompt_of(*["x" * 40] * 41)
    truth = [10] * 20 + [40] * 21
    cut, counts = searched(prompt, 450, lambda at: 3 + sum(truth[at:]))
    assert 3 + sum(truth[cut:]) <= 450 < 3 + sum(truth[cut - 2 :])
    assert counts <= MAX_COUNTS


def test_the_last_count_is_of_the_last_turn_where_no_guess_has_fitted():
    lengths, truth = (400, 400, 40, 400, 40, 400), [0, 0, 0, 50, 0, 231]
    prompt = Prompt("", tuple(Turn(USER, "x" * length) for length in lengths))
    with pytest.raises(PromptTooLarge):
        searched(prompt, 227, lambda at: sum(truth[at:]))


def test_search_takes_back_what_a_guess_has_left_out_too_many():
    """The newer turns have far fewer tokens than they look like."""
    prompt = prompt_of(*["x" * 40] * 41)
    truth = [40] * 20 + [10] * 21
    assert searched(prompt, 200, lambda at: 3 + sum(truth[at:])) == (22, 3)


def test_search_halves_where_the_estimate_is_of_no_use():
    """By the newer turns, all would fit; by all, hardly any."""
    prompt = prompt_of(*["x" * 40] * 401)
    truth = [40] * 200 + [1] * 201
    cut, counts = searched(prompt, 1000, lambda at: 3 + sum(truth[at:]))
    assert 176 < cut <= 206
    assert counts == MAX_COUNTS


def test_search_ends_with_a_last_turn_that_does_not_fit():
    asked = []
    with pytest.raises(PromptTooLarge):
        searched(prompt_of(*["x" * 400] * 5), 202, lambda at: asked.append(at) or 701)
    assert asked == [0, 4]


# Fitting a prompt


@pytest.mark.parametrize("limit", [0, 10_000])
async def test_what_surely_fits_is_not_counted(service, counter, limit):
    prompt = prompt_of("Hello", "Hi", "How are you?")
    assert await counter.fit("model-a", prompt, limit, soon()) == (prompt, 0)
    assert not service.calls


async def test_what_may_not_fit_is_counted_and_stays_whole_where_it_does(service, counter):
    prompt = prompt_of(*["x" * 400] * 5)
    assert await counter.fit("model-a", prompt, estimate_prompt_tokens(prompt), soon()) == (prompt, 0)
    assert [(model, counted) for model, counted, _ in service.calls] == [("model-a", prompt)]


async def test_the_oldest_turns_are_left_out_and_nothing_else_is_touched(counter):
    prompt = prompt_of(*[f"{number} " + "x" * 398 for number in range(9)], system="s" * 400)
    fitted, trimmed = await counter.fit("model-a", prompt, 450, soon())
    assert trimmed == 6
    assert fitted == Prompt(prompt.system_instruction, prompt.turns[6:])
    assert fitted.turns[0].role is USER


async def test_a_model_turn_does_not_come_first_in_what_is_left(counter):
    """The three newest turns would fit; they begin with the model's."""
    turns = (Turn(USER, "x" * 400), Turn(MODEL, "x" * 400), Turn(USER, "x" * 400), Turn(USER, "x" * 400))
    turns = (*turns[:1], Turn(MODEL, "x" * 400), *turns[1:2], *turns[2:])
    fitted, trimmed = await counter.fit("model-a", Prompt("", turns), 300, soon())
    assert (trimmed, fitted.turns) == (3, turns[3:])


async def test_a_last_turn_that_does_not_fit_is_refused(counter):
    with pytest.raises(PromptTooLarge, match="has 203 input tokens without its older turns, of at most 202") as caught:
        await counter.fit("model-a", prompt_of("Hello", "Hi", "x" * 800), 202, soon())
    assert caught.value.reason == Reason.REASON_PROMPT_TOO_LARGE


async def test_a_refusal_tells_what_was_counted(service, counter):
    service.law = lambda prompt: 700 + len(prompt.turns)
    with pytest.raises(PromptTooLarge, match="has 701 input tokens"):
        await counter.fit("model-a", prompt_of(*["x" * 400] * 5), 202, soon())
    assert len(service.calls) == 2


async def test_few_counts_are_enough_for_a_long_history(service, counter):
    service.law = lambda prompt: 2 * estimate_prompt_tokens(prompt)
    _, trimmed = await counter.fit("model-a", prompt_of(*["x" * 400] * 999), 20_003, soon())
    assert trimmed == 900
    assert len(service.calls) <= 3


async def test_where_counting_fails_the_estimate_decides(service, counter):
    service.error = ModelUnavailable()
    prompt = prompt_of(*["x" * 400] * 5)
    assert await counter.fit("model-a", prompt, 350, soon()) == (Prompt(prompt.system_instruction, prompt.turns[2:]), 2)
    with pytest.raises(PromptTooLarge):
        await counter.fit("model-a", prompt, 99, soon())


async def test_where_counting_fails_later_what_was_counted_decides(service, counter):
    def law(prompt):
        service.error = ModelUnavailable()
        return 4 * estimate_prompt_tokens(prompt)

    service.law = law
    _, trimmed = await counter.fit("model-a", prompt_of(*["x" * 400] * 9), 1500, soon())
    assert (trimmed, len(service.calls)) == (6, 2)


async def test_counting_has_a_share_of_the_time(service, counter):
    service.hold()
    _, trimmed = await counter.fit("model-a", prompt_of(*["x" * 400] * 5), 350, Deadline.after(0.5))
    assert trimmed == 2
    assert service.calls[0][2] <= COUNT_SHARE * 0.5


async def test_defects_are_not_taken_for_failures(service, counter):
    service.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await counter.fit("model-a", prompt_of(*["x" * 400] * 5), 350, soon())


async def test_cancelling_a_fit_cancels_its_count(service, counter):
    service.hold()
    fit = asyncio.create_task(counter.fit("model-a", prompt_of("x" * 400), 10, soon()))
    await until(lambda: service.calls)
    fit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fit
    await until(lambda: service.cancelled == 1)


def test_prompts_of_one_persona_begin_with_the_same_instructions():
    """Models cache the beginning of a prompt: neither history nor its trimming may change it."""
    system = "You are Lua, a warm companion."
    one, other = prompt_of("Hello", system=system), prompt_of(*["x" * 400] * 9, system=system)
    fitted, _ = asyncio.run(TokenCounter(Service().count).fit("model-a", other, 250, soon()))
    assert one.system_instruction == fitted.system_instruction == system


# Counting


async def test_equal_prompts_are_counted_once(service, counter):
    prompt = prompt_of("Hello", "Hi", "x" * 40)
    assert [await counter.count("model-a", prompt, soon()) for _ in range(3)] == [estimate_prompt_tokens(prompt)] * 3
    assert len(service.calls) == 1


@pytest.mark.parametrize(
    ("model", "prompt"),
    [
        ("model-b", prompt_of("Hello", "Hi", "You")),
        ("model-a", prompt_of("Hello", "Hi", "You", system="")),
        ("model-a", prompt_of("Hello", "HiYou")),
        ("model-a", prompt_of("HellomodelHiuserYou")),
        ("model-a", Prompt("You are Lua.", (Turn(USER, "Hello"), Turn(USER, "Hi"), Turn(USER, "You")))),
    ],
)
async def test_other_prompts_and_models_are_counted_apart(service, counter, model, prompt):
    await counter.count("model-a", prompt_of("Hello", "Hi", "You"), soon())
    await counter.count(model, prompt, soon())
    assert len(service.calls) == 2


async def test_known_counts_are_bounded_and_the_least_used_goes_first(service):
    counter = TokenCounter(service.count, max_known=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await counter.count("model-a", prompt_of(text), soon())
    assert [prompt.turns[0].text for _, prompt, _ in service.calls] == ["a", "b", "c", "b"]


async def test_known_counts_hold_no_text(counter):
    await counter.count("model-a", prompt_of("a secret message"), soon())
    assert "secret" not in repr(vars(counter))


async def test_concurrent_equal_counts_share_one_call(service, counter):
    service.hold()
    prompt = prompt_of("Hello")
    counts = [asyncio.create_task(counter.count("model-a", prompt, soon())) for _ in range(5)]
    await until(lambda: service.calls)
    service.release()
    assert await asyncio.gather(*counts) == [estimate_prompt_tokens(prompt)] * 5
    assert len(service.calls) == 1


async def test_a_shared_count_ends_with_the_last_who_waits(service, counter):
    service.hold()
    counts = [asyncio.create_task(counter.count("model-a", prompt_of("Hello"), soon())) for _ in range(2)]
    await until(lambda: service.calls)
    counts[0].cancel()
    await asyncio.wait(counts, timeout=0)
    assert service.cancelled == 0
    counts[1].cancel()
    service.release()
    again = asyncio.create_task(counter.count("model-a", prompt_of("Hello"), soon()))
    await until(lambda: service.cancelled == 1)
    assert await again > 0


async def test_failures_are_shared_and_not_kept(service, counter):
    service.hold()
    service.error = ModelUnavailable()
    counts = [asyncio.create_task(counter.count("model-a", prompt_of("Hello"), soon())) for _ in range(2)]
    await until(lambda: service.calls)
    service.release()
    outcomes = await asyncio.gather(*counts, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ModelUnavailable] * 2
    service.error = None
    assert await counter.count("model-a", prompt_of("Hello"), soon()) > 0
    assert len(service.calls) == 2


async def test_who_joins_an_impatient_call_counts_again(service, counter):
    service.hold()
    hasty = asyncio.create_task(counter.count("model-a", prompt_of("Hello"), Deadline.after(0.05)))
    await until(lambda: service.calls)
    patient = asyncio.create_task(counter.count("model-a", prompt_of("Hello"), soon()))
    await until(lambda: len(service.calls) == 2)
    service.release()
    assert await patient > 0
    with pytest.raises(DeadlineExceeded):
        await hasty


async def test_waiting_ends_with_the_own_deadline(service, counter):
    service.hold()
    patient = asyncio.create_task(counter.count("model-a", prompt_of("Hello"), soon()))
    await until(lambda: service.calls)
    with pytest.raises(DeadlineExceeded):
        await counter.count("model-a", prompt_of("Hello"), Deadline.after(0.02))
    service.release()
    assert await patient > 0
    assert len(service.calls) == 1
