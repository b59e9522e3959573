"""The one sentence that says why."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_service.analysis import INTENTS, PACES, TONES, TOPICS
from router_service.personas import DEFAULT_DIRECTORY, PersonaTable, load_personas
from router_service.reasoning import sentence
from router_service.routing import Signals, choose, parse_key

TABLE = load_personas(DEFAULT_DIRECTORY)
FRUSTRATED = ("frustrated", "burst", "expressive", ())
EQUAL = ("calm", "medium", "statement", ())
NEAR = ("curious", "flowing", "inquiry")  # Elro 0.94, Riri 0.92


def said(signals, *, pinned: str = "", unanswered: bool = False, table: PersonaTable = TABLE) -> str:
    return sentence(choose(signals, table, pinned=pinned), table, unanswered=unanswered)


def test_tone_pace_and_intent_come_first_each_with_what_it_contributed():
    english, korean = (said(Signals(*FRUSTRATED, "m", language=language)) for language in ("en", "ko"))
    assert english.startswith("Tone frustrated (0.50), pace burst (0.30) and intent expressive (0.20) give Lua 1.00,")
    assert korean.startswith("말투는 답답함(0.50), 호흡은 짧음(0.30), 의도는 감정 표현(0.20)으로 읽혀 루아가 1.00점")


# Signals, more of them, who is asked for; the end of the sentence in either language.
CASES = {
    "ahead": (
        (FRUSTRATED, {}, ""),
        "give Lua 1.00, which is 0.37 ahead of Nana.",
        "읽혀 루아가 1.00점으로 나나를 0.37점 앞섰어요.",
    ),
    "subject": (
        ((*NEAR, (("planning", 0.3), ("data", 0.6))), {}, ""),
        "give Riri 0.92 beside 0.94 for Elro, and the subject (data) decided.",
        "읽혀 리리가 0.92점, 엘로가 0.94점으로 비슷해서 메시지의 주제(데이터)를 보고 리리를 골랐어요.",
    ),
    "session": (
        (EQUAL, {"previous": "Riri"}, ""),
        "give Riri 1.00 beside 1.00 for Elro, and having answered last decided.",
        "읽혀 리리가 1.00점, 엘로가 1.00점으로 비슷해서 바로 앞에서 답한 리리를 골랐어요.",
    ),
    "draw": (
        (EQUAL, {}, ""),
        "give Riri 1.00 beside 1.00 for Elro, and a stable draw decided.",
        "읽혀 리리가 1.00점, 엘로가 1.00점으로 비슷해서 늘 같은 결과를 내는 추첨으로 리리를 골랐어요.",
    ),
    "asked for": (
        (FRUSTRATED, {}, "Lua"),
        "give Lua 1.00, who was asked for.",
        "읽혀 1.00점인 루아를 요청하신 대로 골랐어요.",
    ),
    "asked for against the match": (
        (FRUSTRATED, {}, "Nana"),
        "give Nana 0.63, who was asked for though Lua matches better with 1.00.",
        "읽혀 나나는 0.63점으로 루아(1.00점)보다 덜 맞아도 요청하신 대로 골랐어요.",
    ),
}


@pytest.mark.parametrize(("given_", "english", "korean"), CASES.values(), ids=CASES)
def test_who_won_by_how_much_or_what_decided(given_, english, korean):
    (tone, pace, intent, topics), more, pinned = given_
    for language, end in (("en", english), ("ko", korean)):
        signals = Signals(tone, pace, intent, topics, "m", language=language, **more)
        assert said(signals, pinned=pinned).endswith(end)


def test_a_tone_that_was_not_clear_is_said_to_be_so():
    english, korean = (said(Signals(*EQUAL, "m", language=language, abstained=True)) for language in ("en", "ko"))
    assert english.startswith("Tone calm (0.50, as none was clear), pace medium (0.30) and")
    assert korean.startswith("말투는 뚜렷하지 않아 차분함(0.50), 호흡은")


def test_subject_and_session_together():
    """Riri lacks 0.04: the subject gives 0.02 and the session 0.03."""
    riri = TABLE.get("Riri")
    tone = riri.affinity.tone | {"calm": riri.affinity.tone["calm"] - 0.08}
    changed = riri.model_copy(update={"affinity": riri.affinity.model_copy(update={"tone": tone})})
    table = PersonaTable(tuple(changed if persona is riri else persona for persona in TABLE.personas))
    for language, words in (
        ("en", "the subject (data) with having answered last decided."),
        ("ko", "메시지의 주제(데이터)를 보고 바로 앞에서 답한 리리를 골랐어요."),
    ):
        signals = Signals("calm", "medium", "statement", (("data", 0.2),), "m", previous="Riri", language=language)
        assert said(signals, table=table).endswith(words)


def test_a_key_is_explained_in_english_with_the_parts_that_fell_back():
    assert said(parse_key("happy-burst-shouting")).startswith(
        "Tone calm (0.50, the default for an unknown one), pace burst (0.15) and intent inquiry (0.20, the default for "
        "an unknown one) give "
    )


@pytest.mark.parametrize(
    ("language", "ending"),
    [("en", "ahead of Nana, but the model could not answer."), ("ko", "앞섰지만 모델이 답하지 못했어요.")],
)
def test_no_answer_is_said_in_the_same_sentence(language, ending):
    assert said(Signals(*FRUSTRATED, "m", language=language), unanswered=True).endswith(ending)


def test_the_only_persona():
    alone = PersonaTable((TABLE.get("Nana"),))
    assert said(Signals(*FRUSTRATED, "m", language="en"), table=alone).endswith("give Nana 0.63, the only persona.")
    assert said(Signals(*FRUSTRATED, "m", language="ko"), table=alone).endswith("하나뿐인 나나가 0.63점을 받았어요.")


def test_a_margin_too_small_for_two_decimals_is_said_to_be_small():
    lua = TABLE.get("Lua")
    tone = lua.affinity.tone | {"frustrated": lua.affinity.tone["frustrated"] - 0.002}
    twin = lua.model_copy(
        update={"name": "Twin", "korean_name": "쌍둥이", "affinity": lua.affinity.model_copy(update={"tone": tone})}
    )
    table = PersonaTable((lua, twin))
    assert "less than 0.01 ahead of Twin" in said(Signals(*FRUSTRATED, "m", language="en"), table=table)
    assert "쌍둥이를 0.01점 미만으로 앞섰어요" in said(Signals(*FRUSTRATED, "m", language="ko"), table=table)


def test_every_label_has_its_own_korean_word():
    for position, labels in enumerate((TONES, PACES, INTENTS)):
        parts = ["calm", "medium", "inquiry"]
        sentences = {
            re.split(
                r" 읽혀 ", said(Signals(*parts[:position], label, *parts[position + 1 :], (), "m", language="ko"))
            )[0]
            for label in labels
        }
        assert len(sentences) == len(labels)
        assert not any(label in text for label, text in itertools.product(labels, sentences))


@given(
    st.builds(
        Signals,
        tone=st.sampled_from(TONES),
        pace=st.sampled_from(PACES),
        intent=st.sampled_from(INTENTS),
        topics=st.lists(st.tuples(st.sampled_from(TOPICS), st.floats(0, 0.25)), unique_by=lambda t: t[0]).map(tuple),
        seed=st.text(max_size=5),
        previous=st.sampled_from(["", *TABLE.names]),
        language=st.sampled_from(["ko", "en"]),
        abstained=st.booleans(),
    ),
    st.sampled_from(["", *TABLE.names]),
    st.booleans(),
)
def test_it_is_one_sentence_in_the_language_of_the_message(signals, pinned, unanswered):
    text = said(signals, pinned=pinned, unanswered=unanswered)
    assert re.findall(r"[.!?](?!\d)", text) == ["."]
    assert text.endswith(".")
    assert bool(re.search("[가-힣]", text)) == (signals.language == "ko")
    assert bool(re.search("[A-Za-z]", text)) == (signals.language == "en")
