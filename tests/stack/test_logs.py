"""A request that is answered is one line, at the gateway, and no stop loses it."""

from __future__ import annotations

import json
from typing import Any

from tests.stack.harness import Process, three_processes

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAID = "오늘은 마음이 조금 무거워요"


def of_requests(process: Process) -> list[dict[str, Any]]:
    return [line for line in process.logged("") if "request_id" in line]


async def test_one_line_a_request(unique):
    """Which waits here for others that do not come, until the stop."""
    async with three_processes({"ION_LOG_BATCH_SECONDS": "3600"}) as chain:
        headers = {"x-request-id": "asked-once", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"}
        members = {"message": unique(SAID), "user_id": "somebody", "session_id": "their-session"}
        answer = (await chain.http.post("/chat", json=members, headers=headers)).json()
    told = {name: of_requests(process) for name, process in chain.processes.items()}
    (line,) = told.pop("gateway_http")
    assert told == {"router_service": [], "llm_gateway": []}
    assert (
        line.items()
        >= {
            "logger": "ion.request",
            "severity": "INFO",
            "request_id": "asked-once",
            "trace_id": TRACE,
            "method": "POST",
            "route": "/chat",
            "status": 200,
            "persona": answer["persona_used"],
        }.items()
    )
    everything = "\n".join(text for process in chain.processes.values() for text in process.lines)
    assert not [text for text in (SAID, json.dumps(SAID)[1:-1], "somebody", "their-session") if text in everything]
