"""Messages made of parts of others."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from router_service.training.augment import recombined
from router_service.training.corpora import Row, own_rows

# Whole sentences, so that a message may be taken apart between its words alone.
KOREAN = ["배포가 또 깨졌어요. 원인을 모르겠어요", "오늘 회의는 몇 시예요?", "고마워요 그런데 하나만 더 볼게요"]
ENGLISH = ["the build is red again. nobody knows why", "when is the meeting today?", "it passed but I do not trust it"]


def row(text, language):
    return Row(text, language, "ion", "calm", "statement", "code", "git", "plain")


ROWS = [row(text, "ko") for text in KOREAN] + [row(text, "en") for text in ENGLISH]


def made(rows=ROWS, count=400, seed=0):
    return list(recombined(rows, count, np.random.default_rng(seed)))


def texts(*written, count=2000):
    return Counter(each.text for each in made([row(text, "en") for text in written], 2 * count))


def test_the_same_seed_makes_the_same_messages_and_another_others():
    assert made(seed=3) == made(seed=3)
    assert made(seed=3) != made(seed=4)


@pytest.mark.parametrize("count", [2, 100, 1000])
def test_about_so_many_are_made_half_of_them_korean(count):
    languages = Counter(each.language for each in made(own_rows("dev"), count))
    assert set(languages) == {"ko", "en"}
    for number in languages.values():
        assert 0.97 * count // 2 <= number <= count // 2


def test_of_rows_in_one_language_only_that_is_made():
    found = made(ROWS[:3])
    assert {each.language for each in found} == {"ko"}
    assert len(found) <= 200
    assert made([]) == []


def test_messages_have_no_labels_and_a_source_of_their_own():
    for each in made():
        assert (each.tone, each.intent, each.topic, each.subject, each.style) == ("",) * 5
        assert each.source == "recombined"


def test_every_word_is_one_of_the_rows_in_that_language():
    for written, language in ((KOREAN, "ko"), (ENGLISH, "en")):
        words = {word for text in written for word in text.split()}
        found = {word for each in made() if each.language == language for word in each.text.split()}
        assert found == words


def test_no_message_is_empty_or_longer_than_400_characters():
    long = made([row("word " * 60 + "end.", "en"), row("긴 문장 " * 70, "ko")])
    assert max(len(each.text) for each in long) == 400
    short = made([row("ok go", "en"), row("네 네", "ko")], 3000)
    assert all(each.text.strip() for each in (*long, *short))


def test_messages_are_taken_apart_after_marks_and_before_joining_words():
    sentences = "the build of today is red again.", "nobody on this team knows why it is"
    assert min(texts(" ".join(sentences))[sentence] for sentence in sentences) > 100
    clauses = "it passed on every machine here", "but I do not trust it very much"
    assert min(texts(" ".join(clauses))[clause] for clause in clauses) > 100
    korean = Counter(each.text for each in made([row("어제 배포는 잘 끝났어요.오늘은 또 느려졌어요", "ko")], 4000))
    assert korean["어제 배포는 잘 끝났어요."] > 100
    assert korean["오늘은 또 느려졌어요"] > 100


def test_parts_of_several_messages_are_put_together():
    first, second = "the build is red again today", "nobody on this team knows"
    found = texts(first, second)
    assert min(found[f"{first} {second}"], found[f"{second} {first}"]) > 50


def test_words_are_taken_away_and_exchanged():
    found = texts("a b c d e f g h", "z z z z z z z z")
    assert sum(set(text.split()) < set("abcdefgh") and len(text) < 15 for text in found) > 20  # taken away
    exchanged = [text for text in found if text.count("z") == 1 and len(text) == 15]
    assert sum(set(text) - {"z", " "} < set("abcdefgh") for text in exchanged) > 5
