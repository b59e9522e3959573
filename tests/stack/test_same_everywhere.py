"""Standalone and three processes give the same answers to the same requests."""

from __future__ import annotations

import json
from typing import Any

from tests.stack.harness import ROOT, standalone, three_processes

SAMPLES = [json.loads(line)["message"] for line in (ROOT / "samples/messages.jsonl").read_text("utf-8").splitlines()]
REQUESTS: list[tuple[str, str, Any]] = [
    ("GET", "/", None),
    ("GET", "/personas", None),
    ("GET", "/openapi.json", None),
    ("GET", "/nothing", None),
    ("POST", "/route", {"resonance_key": "happy-burst-request"}),
    ("POST", "/route", {}),
    ("POST", "/chat", {"message": " "}),
    ("POST", "/chat", {"message": "x" * 1001}),
    ("POST", "/chat", {"message": "hello", "persona": "Bob"}),
    ("POST", "/chat", {"message": "hello", "persona": "riri", "session_id": "s"}),
    *(("POST", "/chat", {"message": message}) for message in SAMPLES[::7]),
    *(("POST", "/route", {"message": message}) for message in SAMPLES[::5]),
]


async def test_same_answers():
    """The offline backend is deterministic, so even replies must agree."""
    env = {"ION_LLM_BACKEND": "offline"}
    async with standalone(env) as one, three_processes(env) as three:
        for method, path, body in REQUESTS:
            answers = [await chain.http.request(method, path, json=body) for chain in (one, three)]
            assert answers[0].status_code == answers[1].status_code, path
            assert _plain(answers[0]) == _plain(answers[1]), (path, body)
            assert set(answers[0].headers) == set(answers[1].headers)


def _plain(response) -> Any:
    answer = response.json()
    answer.pop("request_id", None)
    return answer
