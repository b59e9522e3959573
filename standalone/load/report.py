"""How a run looks: the same table while it goes on, and in the end."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text


def table(title: str, summary: dict[str, Any]) -> Table:
    shown = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    shown.add_column(style="dim")
    shown.add_column()
    shown.add_row("sent", f"{summary['sent']} in {summary['seconds']:.1f} s")
    shown.add_row("ok", f"{summary['ok']}, {summary['requests_per_second']:.1f} a second")
    shown.add_row("errors", _errors(summary["errors"]))
    shown.add_row("latency", _times(summary["latency_ms"]))
    if summary["first_text_ms"]:
        shown.add_row("first text", _times(summary["first_text_ms"]))
    shown.add_row("cache", _shares(summary["cache"]))
    if summary["history"]:
        shown.add_row("history", _shares(summary["history"]))
    shown.add_row("personas", _shares(summary["personas"]))
    return shown


def _errors(errors: dict[str, int]) -> Text:
    if not errors:
        return Text("none", style="green")
    return Text(", ".join(f"{count} {reason}" for reason, count in errors.items()), style="red")


def _times(milliseconds: dict[str, float] | None) -> str:
    if milliseconds is None:
        return "-"
    return "  ".join(
        f"{name.upper() if name != 'max' else name} {value:.1f} ms" for name, value in milliseconds.items()
    )


def _shares(shares: dict[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items()) or "-"
