"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chassis.errors import IonError
from chassis.settings import Settings
from gateway_http import translation
from ion.router.v1 import router_pb2
from standalone.failure import CommandFailed

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def as_json_line(value: Any) -> None:
    """One JSON object on a line of its own, flushed: whoever reads along sees it at once."""
    sys.stdout.write(json_line(value))
    sys.stdout.flush()


def json_line(value: Any) -> str:
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False) + "\n"


def failure(error: IonError | CommandFailed, *, as_json: bool) -> None:
    """One line on standard error, for people or for programs."""
    if as_json:
        told = {"reason": error.reason_name, "message": error.message, "retryable": error.retryable}
        sys.stderr.write(json_line({"error": told}))
    else:
        err.print(f"ion: {error.message}", style="red", markup=False, soft_wrap=True)


def when(time: datetime) -> str:
    """By the clock of this machine, to the minute."""
    return f"{time.astimezone():%Y-%m-%d %H:%M}"


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
