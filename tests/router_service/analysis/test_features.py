"""Hashed n-grams: the same for the same text wherever it stands, and none across the end of a message."""

from __future__ import annotations

import string
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router_service.analysis import features
from router_service.analysis.features import BUCKETS, CHARACTER_NGRAMS, MAX_CHARACTERS, MAX_TOGETHER, NO_BUCKET

BEFORE = 3  # columns of a message's begin

any_text = st.text(st.characters(exclude_categories=()), max_size=60)
chat_text = st.text(st.sampled_from("가나다서버ㅋㅠabcdeAB019 .!?'\n👩"), max_size=40)
texts = st.one_of(any_text, chat_text).map(features.readable)


def extract(*messages):
    return features.extract(messages)


def ngrams(text, size):
    """Buckets of a text's own n-grams of one size, by where they begin."""
    found = extract(text).characters[CHARACTER_NGRAMS.index(size)]
    return found[BEFORE : BEFORE + max(0, len(text.lower()) - size + 1)].tolist()


def words(text, size=1):
    """Buckets of a text's own words, or runs of `size` words."""
    found = extract(text)
    stop = len(text.lower()) + BEFORE
    inside = [first >= BEFORE and end <= stop for first, end in found.word_spans.T]
    return found.words[size - 1][inside][: max(0, sum(inside) - size + 1)].tolist()


# A message among others


@given(st.lists(texts, min_size=1, max_size=6))
@example(["", "", ""])
@example(["İ" * 20, "a"])
def test_a_message_has_the_same_buckets_in_whatever_company(messages):
    together = extract(*messages)
    for number, message in enumerate(messages):
        alone = extract(message)
        columns = slice(together.starts[number], together.ends[number])
        run = slice(*together.word_edges[number : number + 2])
        assert np.array_equal(together.characters[:, columns], alone.characters)
        assert np.array_equal(together.words[:, run], alone.words)
        assert np.array_equal(together.word_spans[:, run] - together.starts[number], alone.word_spans)
        assert np.array_equal(together.counts[number], alone.counts[0])


@given(st.lists(texts, min_size=1, max_size=4))
def test_every_bucket_is_in_range_and_every_message_has_characters_and_words(messages):
    found = extract(*messages)
    for buckets in (found.characters, found.words, found.counts):
        assert buckets.min() >= 0
        assert buckets.max() <= NO_BUCKET == BUCKETS
    assert found.counts.max() < BUCKETS
    assert (found.ends - found.starts).min() > 0
    assert np.diff(found.word_edges).min() > 0


@given(st.lists(texts, min_size=1, max_size=4))
def test_no_ngram_reaches_over_the_end_of_its_message_and_no_other_is_missing(messages):
    found = extract(*messages)
    for row, size in enumerate(CHARACTER_NGRAMS):
        missing = np.flatnonzero(found.characters[row] == NO_BUCKET).tolist()
        assert missing == [end - back for end in found.ends for back in range(size - 1, 0, -1)]
    for row, size in enumerate((1, 2, 3)):
        missing = np.flatnonzero(found.words[row] == NO_BUCKET).tolist()
        assert missing == [end - back for end in found.word_edges[1:] for back in range(size - 1, 0, -1)]


def test_as_many_and_as_long_messages_as_there_may_be():
    longest = ["가나다라 마바사! " * 200, "b" * 5000, "\x03" * 3000, "İ" * MAX_CHARACTERS] * (MAX_TOGETHER // 4)
    found = extract(*longest)
    assert np.array_equal(found.characters[:, -(found.ends[-1] - found.starts[-1]) :], extract(longest[-1]).characters)


def test_what_follows_the_bound_is_not_read():
    text = "ab " * MAX_CHARACTERS
    assert np.array_equal(extract(text).characters, extract(text[:MAX_CHARACTERS]).characters)


# N-grams


@given(chat_text, chat_text, chat_text, st.sampled_from(CHARACTER_NGRAMS))
def test_an_ngram_has_the_same_bucket_wherever_it_stands(before, inside, after, size):
    whole = before + inside + after
    within = ngrams(whole, size)[len(before) : len(before) + max(0, len(inside) - size + 1)]
    assert within == ngrams(inside, size)


def test_different_ngrams_have_different_buckets_but_for_chance():
    letters = string.ascii_lowercase + "가나다라마바사아자차카타파하"
    for size in CHARACTER_NGRAMS:
        text = "".join(np.random.default_rng(size).choice(list(letters), 1000))
        spelt = {text[at : at + size] for at in range(len(text) - size + 1)}
        assert len(spelt) - len(set(ngrams(text, size))) <= 3


def test_order_and_size_matter():
    assert ngrams("ab", 2) != ngrams("ba", 2)
    assert len({*ngrams("aaaaa", 2), *ngrams("aaaaa", 3), *ngrams("aaaaa", 4), *ngrams("aaaaa", 5)}) == 4


def test_the_beginning_and_the_end_of_a_message_are_part_of_it():
    first, second = set(extract("ab").characters.ravel()), set(extract("x ab x").characters.ravel())
    assert first - second
    assert set(extract("왜 안 돼").characters.ravel()) != set(extract("안 돼 왜").characters.ravel())


def test_what_a_message_ends_in_stands_once_more_without_its_marks():
    """Ends of sentences tell intents apart; beyond the bound \\x03 a space and the last letters."""
    asked, bare = (extract(text).characters[3, -13:-4].tolist() for text in ("알려 주실래요?!", "알려 주실래요"))
    assert asked == bare


@given(chat_text)
def test_case_does_not_matter(text):
    assert np.array_equal(extract(text.upper()).characters, extract(text.lower()).characters)


def test_digits_are_alike():
    assert ngrams("1 905", 3) == ngrams("7 000", 3)
    assert ngrams("a1", 2) != ngrams("aa", 2)


# Words


def test_words_are_runs_of_letters_digits_apostrophes_and_pictographs():
    assert words("don't") == words("(don't)") != words("don t")
    assert words("서버,죽었어요!") == [*words("서버"), *words("죽었어요")]
    assert words("ok👍") != words("ok")
    assert words("...") == []


def test_a_word_has_the_same_bucket_wherever_it_stands():
    assert words("서버")[0] in words("운영 서버 죽었어요")
    assert words("서버")[0] not in words("운영서버 죽었어요")
    assert words("server down", 2)[0] in words("our server down again", 2)
    assert words("one two three", 3)[0] in words("zero one two three four", 3)
    assert words("server down", 2)[0] not in words("down server", 2)


def test_every_word_of_a_run_counts():
    assert words("app down", 2) != words("db2 down", 2) != words("db2 slow", 2)
    assert len({words(run, 3)[0] for run in ("a b c", "x b c", "a x c", "a b x")}) == 4


def test_a_word_and_the_ngram_of_its_letters_are_different():
    assert words("ab") != ngrams("ab", 2)


def test_word_spans_bound_the_words():
    text = "Is prod down?"
    first, end = extract(text).word_spans - BEFORE
    shown = [text[start:stop] for start, stop in zip(first, end, strict=True) if start >= 0 and stop <= len(text)]
    assert shown == ["Is", "prod", "down"]


# Counts


@pytest.mark.parametrize(
    ("few", "more"),
    [
        ("a?", "a??"),
        ("a!", "a!!"),
        ("a\nb", "a\nb\nc"),
        ("5%", "5%%"),
        ("ㅋ", "ㅋㅋ"),
        ("ㅠ", "ㅜㅠ"),
        ("a" * 10, "a" * 20),
    ],
)
def test_counts_are_in_steps(few, more):
    assert extract(few).counts.tolist() != extract(more).counts.tolist()
    assert extract(few).counts.tolist() == extract(few[::-1]).counts.tolist()


def test_more_than_three_marks_are_three():
    assert extract("a???").counts.tolist() == extract("?????").counts.tolist()


# As it is read


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ("이거 왜 이래요？！　안 돼요。 정말，", "이거 왜 이래요?! 안 돼요. 정말,"),
        ("ｐｒｏｄ、“ｏｋ”", 'prod,"ok"'),
        ("I don’t get it", "I don't get it"),
        ("ㅋㅋㅋㅋㅋㅋ", "ㅋㅋㅋ"),
        ("！！！！!!!!", "!!!"),
        ("aaaa bbb\n\n\n\n\nc", "aaa bbb\n\n\nc"),
        ("cafe\u0301", "café"),
        ("ｅ\u0301", "é"),
        ("  hello \n", "hello"),
        ("", ""),
    ],
)
def test_messages_are_read_composed_narrow_and_without_long_runs(message, read):
    assert features.readable(message) == read


def test_decomposed_hangul_is_composed():
    assert features.readable(unicodedata.normalize("NFD", "배포가 또 깨졌어요")) == "배포가 또 깨졌어요"


@given(st.text(st.characters(exclude_categories=()), max_size=2 * MAX_CHARACTERS))
@example("ab" * 5000)
@example(" " * 5000 + "a")
def test_what_is_read_is_bounded_and_stays_as_it_is(message):
    once = features.readable(message)
    assert len(once) <= MAX_CHARACTERS
    assert features.readable(once) == once
    assert not any(character * 4 in once for character in set(once))
    assert once == once.strip()
