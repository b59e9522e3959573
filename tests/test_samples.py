"""The samples: messages, and what a reader expected of them before any code read them."""

from __future__ import annotations

import json
from pathlib import Path

from router_service.analysis import TONES
from router_service.personas import DEFAULT_DIRECTORY, load_personas

SAMPLES = Path(__file__).parents[1] / "samples"


def lines(name):
    return [json.loads(line) for line in (SAMPLES / name).read_text(encoding="utf-8").splitlines()]


def test_samples_and_their_expectations_belong_together():
    messages, expected = lines("messages.jsonl"), lines("expected.jsonl")
    assert [line["id"] for line in messages] == [line["id"] for line in expected]
    assert len({line["message"] for line in messages}) == len(messages) >= 120
    assert all(1 <= len(line["message"].strip()) <= 1000 for line in messages)
    assert {line["tone"] for line in expected} == set(TONES)
    known = set(load_personas(DEFAULT_DIRECTORY).names)
    assert all(line["personas"] and known.issuperset(line["personas"]) for line in expected)
