"""The catalogue: what is shipped, how it is read, and what follows from it."""

from __future__ import annotations

import logging
from datetime import date, timedelta

import pytest
from pydantic import ValidationError

from ion.error.v1.reason_pb2 import Reason
from llm_gateway.catalogue import Catalogue, ModelRetired
from llm_gateway.generation import GenerationRequest, Parameters, Prompt, Role, Turn, Usage
from llm_gateway.settings import LlmSettings

TODAY = date(2026, 11, 24)
SHIPPED = Catalogue.load()
SOURCE = {"date": TODAY, "sources": ["a page"]}
PROMPT = Prompt("You are Lua.", (Turn(Role.USER, "Hi"),))


def catalogue(today=TODAY, **models):
    return Catalogue({"facts": SOURCE, "prices": SOURCE, "models": models}, today=lambda: today)


def asking(model, **parameters):
    return GenerationRequest(model, PROMPT, Parameters(**parameters), persona="Lua", scope="tenant")


# What is shipped


def test_default_model_is_known_whole():
    model = SHIPPED.model(LlmSettings.model_fields["model"].default)
    assert model is not None
    assert not model.retired(SHIPPED.facts.date)
    assert None not in (model.accepts, model.input_limit, model.output_limit, model.thinking)
    assert model.prices


def test_replacements_are_known_and_not_retired():
    replacements = {model.replacement for model in SHIPPED.models.values() if model.replacement}
    assert replacements
    for replacement in replacements:
        assert not SHIPPED.models[replacement].retired(SHIPPED.facts.date)


@pytest.mark.parametrize("family", ["1.0", "1.5", "2.0", "2.5"])
def test_older_families_are_retired(family):
    models = [model for name, model in SHIPPED.models.items() if name.startswith(f"gemini-{family}-")]
    assert models
    assert all(model.retired(SHIPPED.facts.date) for model in models)


def test_facts_and_prices_say_when_and_whence():
    for source in (SHIPPED.facts, SHIPPED.prices):
        assert date(2026, 1, 1) < source.date <= TODAY
        assert all(source.sources)


# How it is read


@pytest.mark.parametrize(
    "model",
    [
        {"accepts": ["heat"]},
        {"input_limit": 0},
        {"input_limit": "1048576"},
        {"retires": "2026-10-20", "replacement": "model-b"},
        {"retires": date(2026, 10, 20)},
        {"thinking": {}},
        {"thinking": {"level": "low", "budget": 0}},
        {"thinking": {"level": "none"}},
        {"prices": [{"input": 1.0}]},
        {"color": "blue"},
    ],
)
def test_what_is_not_of_the_form_is_refused(model):
    with pytest.raises(ValidationError):
        catalogue(**{"model-a": model})


def test_facts_without_a_source_are_refused():
    with pytest.raises(ValidationError):
        Catalogue({"facts": {"date": TODAY, "sources": []}, "prices": SOURCE, "models": {}})


# Which model


@pytest.mark.parametrize("model_id", ["model-a", "model-a-001", "model-a@002"])
def test_a_stable_version_is_its_model(model_id):
    assert catalogue(**{"model-a": {"input_limit": 7}}).model(model_id).input_limit == 7


def test_a_version_that_is_listed_is_itself():
    models = {"model-a": {"input_limit": 7}, "model-a-001": {"input_limit": 5}}
    assert catalogue(**models).model("model-a-001").input_limit == 5
    assert catalogue(**models).model("model-a-002").input_limit == 7


@pytest.mark.parametrize("model_id", ["", "model-b", "model-a-1", "model-a-0001", "x/model-a"])
def test_other_models_are_not_known(model_id):
    assert catalogue(**{"model-a": {}}).model(model_id) is None


# Retirement


def test_a_model_is_served_until_the_end_of_its_last_day():
    model = {"retires": date(2026, 10, 20), "replacement": "model-b"}
    assert catalogue(date(2026, 10, 20), **{"model-a": model}).retirement("model-a") is None
    late = catalogue(date(2026, 10, 21), **{"model-a": model})
    assert late.retirement("model-a-001") == "was retired on 2026-10-20: use model-b"


def test_a_retired_model_is_refused_with_the_replacement_named():
    with pytest.raises(
        ModelRetired, match=r"The model was retired on 2026-10-20: use gemini-3\.5-flash-lite\."
    ) as caught:
        SHIPPED.check_usable("gemini-2.5-flash")
    assert caught.value.reason == Reason.REASON_MODEL_NOT_FOUND
    assert not caught.value.retryable


@pytest.mark.parametrize("model_id", ["gemini-3.5-flash", "gemini-99-unheard-of", "offline", ""])
def test_other_models_pass(model_id):
    SHIPPED.check_usable(model_id)


def test_an_earliest_day_of_retirement_refuses_nothing():
    model = {"retires_not_before": TODAY - timedelta(days=1), "replacement": "model-b"}
    assert catalogue(**{"model-a": model}).retirement("model-a") is None


# Parameters

TAKES_LITTLE = {"model-a": {"accepts": ["stop_sequences"], "output_limit": 100}}


def test_parameters_that_the_model_does_not_take_are_left_out_and_the_rest_kept():
    request = asking(
        "model-a",
        temperature=0.0,
        top_p=0.9,
        max_output_tokens=50,
        stop_sequences=("x",),
        response_json_schema="{}",
        minimal_thinking=True,
    )
    fitted = catalogue(**TAKES_LITTLE).fit(request)
    assert fitted.parameters == Parameters(max_output_tokens=50, stop_sequences=("x",), minimal_thinking=True)
    assert (fitted.model, fitted.prompt, fitted.persona, fitted.scope) == ("model-a", PROMPT, "Lua", "tenant")


@pytest.mark.parametrize(("asked", "sent"), [(0, 0), (100, 100), (101, 100), (65536, 100)])
def test_output_is_limited_to_what_the_model_can_write(asked, sent):
    fitted = catalogue(**TAKES_LITTLE).fit(asking("model-a", max_output_tokens=asked))
    assert fitted.parameters.max_output_tokens == sent


@pytest.mark.parametrize("model_id", ["model-b", "model-c"])
def test_a_model_of_which_nothing_is_known_gets_all_parameters(model_id):
    request = asking(model_id, temperature=0.3, top_p=0.9, max_output_tokens=65536)
    assert catalogue(**TAKES_LITTLE, **{"model-b": {}}).fit(request) is request


def test_each_parameter_is_warned_of_once_and_by_name_only(caplog):
    known = catalogue(**TAKES_LITTLE)
    with caplog.at_level(logging.WARNING):
        for model in ("model-a", "model-a-001", "model-a"):
            known.fit(asking(model, temperature=0.123))
        assert [record.getMessage() for record in caplog.records] == [
            "model-a does not take temperature: it is left out"
        ]
        known.fit(asking("model-a", temperature=0.5, top_p=0.9))
    assert [record.getMessage() for record in caplog.records[1:]] == ["model-a does not take top_p: it is left out"]


def test_nothing_is_warned_of_that_is_not_set(caplog):
    catalogue(**TAKES_LITTLE).fit(asking("model-a", stop_sequences=("x",)))
    assert not caplog.records


def test_newer_models_ignore_sampling_and_older_ones_follow_it():
    request = asking("gemini-3.8-flash", temperature=0.5, top_p=0.9)
    assert SHIPPED.fit(request).parameters == Parameters()
    request = asking("gemini-3.5-flash", temperature=0.5, top_p=0.9)
    assert SHIPPED.fit(request) is request


def test_thinking_is_asked_for_in_the_words_of_the_model():
    assert SHIPPED.thinking_of("gemini-3.5-flash").level == "minimal"
    assert SHIPPED.thinking_of("gemini-3.8-flash").level == "low"
    assert SHIPPED.thinking_of("gemini-4-hydrogen").level == "low"
    assert SHIPPED.thinking_of("gemini-99-unheard-of") is None
    assert catalogue(**{"model-a": {"thinking": {"budget": 0}}}).thinking_of("model-a").budget == 0


# Limits and prices


@pytest.mark.parametrize(
    ("model_id", "limits", "least"),
    [
        ("model-a", (0, 0), 100),
        ("model-a", (70, 0), 70),
        ("model-a", (0, 60), 60),
        ("model-a", (70, 60), 60),
        ("model-a", (700, 600), 100),
        ("model-b", (0, 0), 0),
        ("model-b", (7, 0), 7),
    ],
)
def test_input_limit_is_the_least_of_those_there_are(model_id, limits, least):
    assert catalogue(**{"model-a": {"input_limit": 100}}).input_limit(model_id, *limits) == least


def test_cost_counts_what_was_lost_too():
    known = catalogue(**{"model-a": {"prices": [{"input": 2.0, "output": 10.0}]}, "model-b": {}})
    assert known.cost_usd("model-a-001", Usage(1_000_000), Usage(0, 100_000)) == pytest.approx(3.0)
    assert known.cost_usd("model-a", Usage()) == 0.0
    assert known.cost_usd("model-b", Usage(1)) is None
    assert known.cost_usd("model-c", Usage(1)) is None


def test_cost_is_that_of_the_day():
    prices = [{"input": 2.0, "output": 10.0}, {"since": date(2026, 12, 1), "input": 4.0, "output": 20.0}]
    for today, dollars in ((date(2026, 11, 30), 2.0), (date(2026, 12, 1), 4.0)):
        known = catalogue(today, **{"model-a": {"prices": prices}})
        assert known.cost_usd("model-a", Usage(1_000_000)) == pytest.approx(dollars)


def test_a_model_is_asked_only_where_it_is_served():
    catalogue = Catalogue.load()
    assert catalogue.misplacement("gemini-3.8-flash", ["global", "eu"]) is None
    assert catalogue.misplacement("gemini-3.5-flash", ["us-central1"]) is None
    assert catalogue.misplacement("model-unknown", ["us-central1"]) is None
    misplaced = catalogue.misplacement("gemini-3.8-flash", ["global", "us-central1"])
    assert misplaced == "gemini-3.8-flash is served at global, us, eu only"
