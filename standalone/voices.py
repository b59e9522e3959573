"""How answers look at a terminal: who speaks, each persona in its own colour, what is said, and why this persona."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from rich.markup import escape
from rich.text import Text

from ion.router.v1 import router_pb2
from standalone import show
from standalone.client import Router

# Readable on dark and on light ground. More personas than colours share them.
_COLOURS: Final = ("cyan", "magenta", "green", "blue", "yellow", "red")
_UNKNOWN: Final = "default"
# What a reply must not do to a terminal: everything that moves the cursor or begins a sequence.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """The text without control characters, but for tabs and the ends of lines."""
    return _CONTROL.sub("", text)


class Voices:
    """The personas as they are shown. One that is not among them has no symbol and no colour."""

    def __init__(self, personas: Iterable[router_pb2.Persona]) -> None:
        listed = sorted(personas, key=lambda persona: persona.name)
        self._symbols = {persona.name: persona.symbol for persona in listed}
        self._colours = {persona.name: _COLOURS[at % len(_COLOURS)] for at, persona in enumerate(listed)}

    def colour(self, persona: str) -> str:
        return self._colours.get(persona, _UNKNOWN)

    def name(self, persona: str) -> Text:
        return Text(harmless(persona), style=f"bold {self.colour(persona)}")

    def who(self, choice: router_pb2.Routing | router_pb2.Turn, *, with_symbol: bool = True) -> None:
        symbol = f"{self._symbols.get(choice.persona, '')} " if with_symbol else ""
        basis = Text(f"  {harmless(choice.resonance_key)}  {choice.confidence:.2f}", style="dim")
        show.out.print(Text.assemble(symbol, self.name(choice.persona), basis), soft_wrap=True)

    def why(self, routing: router_pb2.Routing, analysis: router_pb2.Analysis) -> None:
        for score in sorted(routing.scores, key=lambda item: -item.score):
            bar, colour = "█" * round(score.score * 20), self.colour(score.persona)
            name = escape(harmless(f"{score.persona:<6}"))
            show.out.print(f"  [dim]{name}[/dim] [{colour}]{bar:<20}[/{colour}] {score.score:.2f}")
        show.out.print(f"  [dim]{escape(routing.reasoning)}[/dim]", soft_wrap=True)
        if analysis.evidence:
            words = ", ".join(f"{harmless(word.text)} (+{word.weight:.2f})" for word in analysis.evidence)
            show.out.print(f"  [dim]{analysis.tone.primary}: {escape(words)}[/dim]", soft_wrap=True)


async def of(router: Router) -> Voices:
    return Voices((await router.list_personas()).personas)


def text(said: str) -> None:
    """A whole text, as it is."""
    piece(said)
    show.out.print()


def piece(said: str) -> None:
    """A part of a text, as it is; the line stays open."""
    show.out.out(harmless(said) if show.out.is_terminal else said, end="", highlight=False)
