"""Pace, sentences and marks by the thresholds of the reference, and the language."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router_service.analysis.rhythm import language_of, rhythm_of

any_text = st.text(st.characters(exclude_categories=()), max_size=300)


@pytest.mark.parametrize(
    ("text", "pace"),
    [
        ("a b c, " + "d" * 5, "flowing"),  # 4 words, more than 8 %
        ("a b c, d.", "flowing"),  # 4 words
        ("a b, c.", "burst"),  # 3 words
        ("a b" + "c" * 21 + "..", "flowing"),  # 2 words, 2 of 26 characters
        ("a b" + "c" * 20 + "..", "flowing"),  # 2 of 25 is 8 %, which is not more than 8 %
        ("a b" + "c" * 19 + "..", "burst"),  # 2 of 24
        ("w " * 9, "flowing"),
        ("w " * 10, "contemplative"),
        ("w " * 12 + ". " + "w " * 8, "contemplative"),  # 10 on average
        ("w " * 11 + ". " + "w " * 8, "flowing"),
        ("뭐야! 안 돼! 왜?!", "burst"),
        ("?", "burst"),
        ("", "flowing"),
    ],
)
def test_pace_at_its_thresholds(text, pace):
    assert rhythm_of(text).pace == pace


def test_length_is_words_a_sentence_and_density_marks_a_character():
    rhythm = rhythm_of("One two three... Four, five; six: seven?! ")
    assert rhythm.avg_length == 3.5
    assert rhythm.punctuation_density == 8 / 42


def test_no_punctuation_is_one_sentence():
    rhythm = rhythm_of("운영 서버 죽었어요 지금 결제가 하나도 안 됩니다")
    assert (rhythm.avg_length, rhythm.punctuation_density) == (8, 0)


def test_a_text_without_words_has_no_length():
    assert rhythm_of("").avg_length == rhythm_of("?!").avg_length == 0
    assert rhythm_of("").punctuation_density == 0
    assert rhythm_of("?!").punctuation_density == 1


def test_confidence_is_half_on_a_threshold_and_grows_away_from_it():
    lengths = [rhythm_of("w " * words).confidence for words in (10, 11, 12, 14, 30)]
    assert lengths == sorted(lengths)
    assert lengths[0] == pytest.approx(0.5, abs=0.01)
    assert lengths[-1] == pytest.approx(1)
    middle = [rhythm_of("w " * words).confidence for words in (9, 8, 7)]
    assert middle == sorted(middle)


@given(any_text)
@example("w " * 5000)
@example("?" * 5000)
def test_any_text_has_a_rhythm_within_bounds(text):
    rhythm = rhythm_of(text)
    assert rhythm.pace in {"burst", "flowing", "contemplative"}
    assert 0 <= rhythm.avg_length <= len(text)
    assert math.isfinite(rhythm.avg_length)
    assert 0 <= rhythm.punctuation_density <= 1
    assert 0.49 < rhythm.confidence <= 1
    assert rhythm == rhythm_of(text)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("안녕하세요", "ko"),
        ("ㅋㅋ", "ko"),
        ("hello there", "en"),
        ("🙂🙂", "en"),
        ("", "en"),
        ("가abc", "ko"),  # a quarter
        ("가abcd", "en"),
        ("Kafka offset commit이 auto인지 manual인지 문서마다 달라요", "ko"),
        ('what does "답답" mean in a code review', "en"),
        ("café déjà vu", "en"),
    ],
)
def test_share_of_hangul_decides_the_language(text, language):
    assert language_of(text) == language


@given(any_text)
def test_any_text_is_of_one_of_both_languages(text):
    assert language_of(text) in {"ko", "en"}
