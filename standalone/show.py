"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chassis.settings import Settings
from gateway_http import translation
from ion.router.v1 import router_pb2

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def as_json_line(value: Any) -> None:
    """One JSON object on a line of its own, flushed: whoever reads along sees it at once."""
    sys.stdout.write(json.dumps(msgspec.to_builtins(value), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def chat(response: router_pb2.ChatResponse, symbols: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        as_json_line(translation.chat_response(response))
        return
    who(response.routing, symbols)
    out.print(escape(response.content), soft_wrap=True)
    why(response.routing, response.analysis)


def who(routing: router_pb2.Routing, symbols: dict[str, str]) -> None:
    symbol = symbols.get(routing.persona, "")
    out.print(f"[bold]{symbol} {routing.persona}[/bold]  [dim]{routing.resonance_key}  {routing.confidence:.2f}[/dim]")


def piece(text: str) -> None:
    """A part of a reply, as it is; the line stays open."""
    out.out(text, end="", highlight=False)


def route(response: router_pb2.RouteResponse, *, as_json: bool) -> None:
    if as_json:
        as_json_line(translation.route_response(response))
        return
    routing = response.routing
    out.print(f"[bold]{routing.persona}[/bold]  [dim]{routing.resonance_key}  {routing.confidence:.2f}[/dim]")
    why(routing, response.analysis)


def why(routing: router_pb2.Routing, analysis: router_pb2.Analysis) -> None:
    for score in sorted(routing.scores, key=lambda item: -item.score):
        bar = "█" * round(score.score * 20)
        out.print(f"  [dim]{score.persona:<6}[/dim] [cyan]{bar:<20}[/cyan] {score.score:.2f}")
    out.print(f"  [dim]{escape(routing.reasoning)}[/dim]", soft_wrap=True)
    if analysis.evidence:
        words = ", ".join(f"{word.text} (+{word.weight:.2f})" for word in analysis.evidence)
        out.print(f"  [dim]{analysis.tone.primary}: {escape(words)}[/dim]", soft_wrap=True)


def persona_counts(counts: Counter[str], failed: int) -> None:
    """How many messages went to whom."""
    table = Table(title="Personas", title_justify="left")
    table.add_column("persona")
    table.add_column("messages", justify="right")
    table.add_column("share", justify="right")
    total = sum(counts.values()) or 1
    for persona, count in counts.most_common():
        table.add_row(persona, str(count), f"{count / total:.0%}")
    if failed:
        table.add_row("[red]not routed[/red]", str(failed), "")
    out.print(table)


def personas(listed: Iterable[router_pb2.Persona], *, as_json: bool) -> None:
    if as_json:
        for persona in listed:
            as_json_line(translation.persona(persona))
        return
    table = Table()
    for column in ("", "name", "role", "preferred tones", "decides near-ties on"):
        table.add_column(column)
    for persona in listed:
        name = f"{persona.name} {persona.korean_name}"
        table.add_row(persona.symbol, name, persona.role, ", ".join(persona.preferred_tones), ", ".join(persona.topics))
    out.print(table)


def health(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        as_json_line(answer)
        return
    colour = "green" if answer.get("status") == "healthy" else "red"
    out.print(f"[{colour}]{answer.get('status', 'unreachable')}[/{colour}]")
    for name, value in answer.items():
        if name != "status":
            out.print(f"  {name}: {value}", markup=False)


def settings(loaded: Sequence[Settings], *, as_json: bool) -> None:
    rows = list(_setting_rows(loaded))
    if as_json:
        for row in rows:
            as_json_line(row)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("variable", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("meaning")
    for row in rows:
        value = row["value"] if row["value"] == row["default"] else f"{row['value']}  (default {row['default']})"
        table.add_row(row["variable"], escape(value), escape(row["meaning"]))
    out.print(table)
    out.print("OTEL_* variables have their standard meanings.", style="dim")


def _setting_rows(loaded: Sequence[Settings]) -> Iterable[dict[str, str]]:
    seen = set()
    for group in loaded:
        for name, field in type(group).model_fields.items():
            variable = str(field.validation_alias)
            if variable not in seen:
                seen.add(variable)
                yield {
                    "variable": variable,
                    "value": _plain(getattr(group, name)),
                    "default": _plain(field.default),
                    "meaning": field.description or "",
                }


def _plain(value: object) -> str:
    if value is None or value in ((), {}):
        return "unset"
    if isinstance(value, SecretStr):
        return "(hidden)"
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, dict):
        return ",".join(f"{key}={item}" for key, item in value.items())
    return str(value)
