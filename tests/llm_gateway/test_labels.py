"""Names as telemetry tells them: only so many, whatever callers ask for."""

from __future__ import annotations

from llm_gateway.catalogue import Catalogue
from llm_gateway.labels import MAX_PERSONAS, NO_PERSONA, OTHER, Labels


def test_models_are_those_configured_or_listed():
    labels = Labels("my-own-001", Catalogue.load().known_as)
    told = {
        name: labels.model(name) for name in ("my-own-001", "my-own-002", "gemini-3.5-flash", "gemini-3.5-flash-123")
    }
    assert told == {
        "my-own-001": "my-own-001",
        "my-own-002": OTHER,
        "gemini-3.5-flash": "gemini-3.5-flash",
        "gemini-3.5-flash-123": "gemini-3.5-flash",
    }


def test_the_first_personas_keep_their_names_and_all_later_ones_share_one():
    labels = Labels("model-a")
    names = [f"persona {number}" for number in range(MAX_PERSONAS)]
    assert [labels.persona(name) for name in names] == names
    assert labels.persona("one more") == OTHER
    assert [labels.persona(name) for name in names] == names


def test_a_call_without_a_persona_has_a_label_too():
    assert Labels("model-a").persona("") == NO_PERSONA
