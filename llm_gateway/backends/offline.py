"""Replies without a model: deterministic, in the persona's voice, and marked as what they are."""

from __future__ import annotations

import hashlib
import re
import textwrap
import tomllib
from collections.abc import AsyncGenerator
from importlib import resources
from typing import Final

from llm_gateway.generation import FinishReason, GenerationRequest, ModelRejected, Prompt, Reply, Usage
from llm_gateway.tokens import estimate_prompt_tokens, estimate_tokens

MODEL: Final = "offline"
LOCATION: Final = "local"
_NEUTRAL: Final = "neutral"
_TOPIC_CHARACTERS: Final = 40
_WORDS_OF_A_PIECE: Final = 4
Parts = list[list[str]]


class OfflineBackend:
    """See Backend. Equal requests get equal replies, everywhere and in every version of Python. It refuses nothing but
    JSON after a schema, since what it would make up is no model's judgement.

    `max_output_tokens` and the other parameters are ignored: they tune a model, and there is none. A reply has
    well under 200 tokens.
    """

    default_model = MODEL
    provider = "ion.offline"
    locations = (LOCATION,)

    def __init__(self) -> None:
        phrases = tomllib.loads(resources.files(__package__).joinpath("voices.toml").read_text("utf-8"))
        self._voices: dict[str, dict[str, Parts]] = phrases["voices"]
        self._marks: dict[str, str] = phrases["mark"]
        self._topics: dict[str, str] = phrases["topic"]

    def address(self, location: str) -> str:
        return ""

    async def generate(self, request: GenerationRequest, *, location: str, timeout_seconds: float) -> Reply:
        if request.parameters.response_json_schema:
            raise ModelRejected("The offline backend has no model that could answer after a JSON schema.")
        text = self._compose(request)
        usage = Usage(input_tokens=estimate_prompt_tokens(request.prompt), output_tokens=estimate_tokens(text))
        return Reply(text, MODEL, LOCATION, FinishReason.STOP, usage, offline=True)

    async def stream(
        self, request: GenerationRequest, *, location: str, timeout_seconds: float
    ) -> AsyncGenerator[str | Reply, None]:
        reply = await self.generate(request, location=location, timeout_seconds=timeout_seconds)
        for piece in pieces_of(reply.text):
            yield piece
        yield reply

    async def count_tokens(self, model: str, prompt: Prompt, *, location: str, timeout_seconds: float) -> int:
        """An estimate from the number of characters: see `estimate_tokens`."""
        return estimate_prompt_tokens(prompt)

    async def close(self) -> None:
        """Nothing is open."""

    def _compose(self, request: GenerationRequest) -> str:
        language = "ko" if request.language.partition("-")[0].lower() == "ko" else "en"
        voice = self._voices.get(request.persona.lower(), self._voices[_NEUTRAL])[language]
        topic = topic_of(request.prompt.turns[-1].text) or self._topics[language]
        seed = _seed(request.persona, request.prompt)
        lines = [phrases[byte % len(phrases)] for phrases, byte in zip(voice, seed, strict=False)]
        # replace, not format: braces in the user's text are text.
        return "\n".join([*lines, "", self._marks[language]]).replace("{topic}", topic)


def topic_of(message: str) -> str:
    """A short piece of the message on one line, cut between words where it can be; empty where it has no words."""
    text = " ".join(message.split())
    if not re.search(r"\w", text):
        return ""
    shortened = textwrap.shorten(text, _TOPIC_CHARACTERS, placeholder="…")
    # A first word longer than that (a text without spaces) leaves the placeholder alone.
    return shortened.rstrip(".!?,;: ") if shortened != "…" else text[: _TOPIC_CHARACTERS - 1] + "…"


def pieces_of(text: str) -> list[str]:
    """The text in runs of a few words, each with the white space around it."""
    return re.findall(rf"\s*(?:\S+\s*){{1,{_WORDS_OF_A_PIECE}}}", text)


def _seed(persona: str, prompt: Prompt) -> bytes:
    said = "\0".join([persona, *(turn.text for turn in prompt.turns)])
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()
