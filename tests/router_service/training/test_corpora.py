"""The own corpus, and what is read, left out and rewritten of all corpora."""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router_service.analysis.features import readable
from router_service.training import calibrate, corpora, teacher, train
from router_service.training.corpora import (
    DEV_STYLES,
    DEV_SUBJECTS,
    LABELS,
    LICENCES,
    OWN,
    TEST_STYLES,
    Row,
    at_most,
    at_work,
    leave_out,
    other_writing,
    own_rows,
    read_rows,
)

TONES, INTENTS, TOPICS = LABELS
OWN_ROWS = read_rows(OWN)
SPLITS = {split: own_rows(split) for split in ("train", "dev", "test")}
LANGUAGES = ("ko", "en")


def row(text, source="ion", tone="", intent="", **fields):
    return Row(text, "en", source, tone, intent, **fields)


# The own corpus


def test_the_corpus_has_thousands_of_rows_with_ids_of_their_own():
    with OWN.open(encoding="utf-8") as lines:
        ids = [each["id"] for each in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)]
    assert len(OWN_ROWS) == len(ids) == len(set(ids)) >= 3000
    assert all(ids)


def test_no_text_stands_twice_whatever_its_marks_and_case():
    letters = Counter("".join(filter(str.isalnum, each.text.casefold())) or each.text for each in OWN_ROWS)
    assert letters.most_common(1)[0][1] == 1


def test_every_label_is_one_of_the_vocabulary_and_every_row_has_all_of_them():
    for each in OWN_ROWS:
        assert each.tone in TONES
        assert each.intent in INTENTS
        assert each.topic in TOPICS
        assert each.subject
        assert each.style
        assert each.source == "ion"


def test_texts_are_messages_of_a_chat():
    for each in OWN_ROWS:
        assert 1 <= len(each.text) <= 1000
        assert readable(each.text)
        assert each.text == each.text.strip()
        assert all(sign == "\n" or ord(sign) >= 0x20 for sign in each.text)
    assert any("\n" in each.text for each in OWN_ROWS)


def test_languages_are_about_halves_and_korean_is_written_in_hangul():
    counts = Counter(each.language for each in OWN_ROWS)
    assert set(counts) == set(LANGUAGES)
    assert min(counts.values()) >= 0.4 * len(OWN_ROWS)
    for each in OWN_ROWS:
        assert bool(re.search("[가-힣ㄱ-ㆎ]", each.text)) <= (each.language == "ko")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_tone_with_every_intent_and_every_topic_occur_in_each_split_and_language(split, language):
    rows = [each for each in SPLITS[split] if each.language == language]
    assert {(each.tone, each.intent) for each in rows} == {(tone, intent) for tone in TONES for intent in INTENTS}
    assert {each.topic for each in rows} == set(TOPICS)


def test_every_subject_is_written_about_in_both_languages():
    languages = defaultdict(set)
    for each in OWN_ROWS:
        languages[each.subject].add(each.language)
    assert len(languages) >= 30
    assert languages.keys() >= DEV_SUBJECTS
    assert all(found == set(LANGUAGES) for found in languages.values())


def test_a_style_is_of_one_language():
    languages = defaultdict(set)
    for each in OWN_ROWS:
        languages[each.style].add(each.language)
    assert all(len(found) == 1 for found in languages.values())
    assert languages.keys() >= DEV_STYLES | TEST_STYLES


# Splits


def test_splits_have_every_row_once_and_share_no_text():
    assert sum(map(len, SPLITS.values())) == len(OWN_ROWS)
    texts = [{each.text for each in rows} for rows in SPLITS.values()]
    assert len(set.union(*texts)) == sum(map(len, texts))
    assert len(SPLITS["train"]) > 10_000
    assert len(SPLITS["dev"]) > 1000
    assert len(SPLITS["test"]) > 400


def test_splits_are_by_who_wrote_and_about_what_never_by_row():
    found = defaultdict(set)
    for split, rows in SPLITS.items():
        for each in rows:
            found[each.style, each.subject].add(split)
    assert all(len(splits) == 1 for splits in found.values())


def test_who_wrote_the_test_split_wrote_nothing_else():
    assert {each.style for each in SPLITS["test"]} == TEST_STYLES
    for split in ("train", "dev"):
        assert not {each.style for each in SPLITS[split]} & TEST_STYLES


def test_who_wrote_or_what_is_held_back_for_dev_is_never_in_train():
    assert not {each.style for each in SPLITS["train"]} & DEV_STYLES
    assert not {each.subject for each in SPLITS["train"]} & DEV_SUBJECTS
    for each in SPLITS["dev"]:
        assert each.style in DEV_STYLES or each.subject in DEV_SUBJECTS


@pytest.mark.parametrize(
    ("style", "subject", "split"),
    [
        ("en_lead", "git", "train"),
        ("en_lead", "mobile", "dev"),
        ("en_gamer_dev", "git", "dev"),
        ("en_user_a", "git", "test"),
        ("en_user_a", "mobile", "test"),
    ],
)
def test_a_row_goes_to_test_before_dev_before_train(style, subject, split):
    assert row("hello", style=style, subject=subject).split == split


# Reading files

fields = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\t\n\r\\"), max_size=20)
COLUMNS = ("text", "lang", "source", "tone", "intent", "topic", "subject", "style")


def write(path, columns, rows):
    text = "".join("\t".join(each) + "\n" for each in (columns, *rows))
    with gzip.open(path, "wt", encoding="utf-8") if path.suffix == ".gz" else path.open("w", encoding="utf-8") as file:
        file.write(text)
    return path


@given(
    st.lists(st.tuples(*[fields] * len(COLUMNS)), max_size=4), st.permutations(COLUMNS), st.sampled_from(["", ".gz"])
)
@example([('"quoted', "'", '"', "", "", "", "", "")], COLUMNS, "")
@example([("\u2028\x85\x0b\x1c", "", "", "", "", "", "", "")], COLUMNS, ".gz")
def test_what_is_written_is_read_back_whatever_the_order_of_the_columns(tmp_path_factory, rows, order, suffix):
    written = [dict(zip(COLUMNS, each, strict=True)) for each in rows]
    path = tmp_path_factory.getbasetemp() / f"rows.tsv{suffix}"
    write(path, order, [[each[name] for name in order] for each in written])
    assert read_rows(path) == [Row(*each) for each in rows]


@pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz"])
def test_columns_of_no_use_are_passed_over_and_missing_ones_are_empty(tmp_path, suffix):
    header = ("id", "lang", "source", "tone", "intent", "raw_label", "text")
    path = write(tmp_path / f"rows{suffix}", header, [("1", "ko", "kote", "calm", "", "없음", "네")])
    assert read_rows(path) == [Row("네", "ko", "kote", "calm", "", "", "", "")]


@pytest.mark.parametrize(
    ("written", "read"), [(r"a\nb", "a\nb"), (r"a\n\nb\n", "a\n\nb\n"), (r"a\tb", r"a\tb"), ('say "hi"', 'say "hi"')]
)
def test_a_line_break_is_written_as_backslash_n(tmp_path, written, read):
    for suffix in (".tsv", ".tsv.gz"):
        path = write(tmp_path / f"rows{suffix}", COLUMNS, [(written, *[""] * 7)])
        assert [each.text for each in read_rows(path)] == [read]


# Leaving out


def test_sources_left_out_are_those_named():
    rows = [row("a", "kote"), row("b", "mrda"), row("c", "kote"), row("d", "seed")]
    assert list(leave_out(rows, ["kote", "goemo"])) == [rows[1], rows[3]]
    assert list(leave_out(rows, [])) == rows


groups = st.lists(st.tuples(st.sampled_from(["kote", "mrda"]), st.sampled_from(["calm", "curious", ""])), max_size=30)
limits = st.dictionaries(
    st.tuples(st.sampled_from(["kote", "mrda"]), st.sampled_from(["calm", "curious", "request"])), st.integers(0, 5)
)


@given(groups, limits, st.integers(0, 3))
def test_of_each_source_and_label_there_are_at_most_so_many(labels, most, seed):
    rows = [row(str(n), source, tone, "" if tone else "request") for n, (source, tone) in enumerate(labels)]
    found = list(at_most(rows, most, np.random.default_rng(seed)))
    given_rows = defaultdict(list)
    for each in rows:
        given_rows[each.source, each.tone or each.intent].append(each)
    kinds = [(group[0].source, group[0].tone or group[0].intent) for group in found if group]
    assert kinds == [kind for kind in sorted(given_rows) if most.get(kind, 1)]
    for kind, group in zip(kinds, filter(None, found), strict=True):
        assert len(group) == len(set(group)) == min(most.get(kind, 99), len(given_rows[kind]))
        assert set(group) <= set(given_rows[kind])
    assert found == list(at_most(rows, most, np.random.default_rng(seed)))


def test_which_are_left_is_drawn_at_random():
    rows = [row(str(number), "kote", "calm") for number in range(100)]
    drawn = [next(at_most(rows, {("kote", "calm"): 10}, np.random.default_rng(seed))) for seed in range(20)]
    assert len({each.text for group in drawn for each in group}) > 60


# The other writing


def test_without_marks_where_a_source_has_them():
    written = row('So, it broke... again?!  "Really"; 3:4~', "mrda", intent="inquiry", subject="git")
    assert other_writing(written) == replace(written, text="So it broke again Really 3 4")
    assert other_writing(row("왜 또 안 돼요…?")).text == "왜 또 안 돼요"


def test_a_message_of_marks_alone_stays_as_it_is():
    assert other_writing(row("?!", "goemo")).text == "?!"


@pytest.mark.parametrize("source", ["3i4k", "stylekqc"])
@pytest.mark.parametrize(
    ("intent", "mark"), [("inquiry", "?"), ("request", "."), ("statement", "."), ("expressive", "!"), ("", ".")]
)
def test_with_a_mark_by_its_intent_where_a_source_has_none(source, intent, mark):
    assert other_writing(row("지금 몇 시야", source, intent=intent)).text == f"지금 몇 시야{mark}"


@pytest.mark.parametrize("source", LICENCES)
def test_only_the_text_is_written_otherwise(source):
    written = row("Is it, now", source, "calm", "inquiry", topic="code", subject="git", style="en_lead")
    other = other_writing(written)
    assert other.text != written.text
    assert replace(other, text=written.text) == written


# Sources


def test_only_chats_at_work_are_at_work():
    assert {source for source in LICENCES if at_work(row("hello", source))} == {"ion", "seed"}


def test_every_source_has_a_licence_by_its_spdx_name():
    made = {"recombined", "noise"}  # of the own corpus, and of nothing
    named = {source for source, _ in (*teacher.MOST, *train.MOST, *teacher.TWICE)}
    named |= {*train.WEIGHTS, *train.SIGHTINGS, *teacher.SHARES, *(each.source for each in OWN_ROWS)} - made
    for means in calibrate._MEANS:
        named.update(*means.values())
    assert named <= LICENCES.keys()
    spdx = {"CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "Apache-2.0", "MIT", "GPL-3.0-only"}
    assert {part for text in LICENCES.values() for part in text.split(" AND ")} <= spdx
    assert LICENCES["ion"] == "CC0-1.0"


def test_the_corpus_lies_beside_the_code():
    assert OWN.is_relative_to(corpora.Path(corpora.__file__).parent)
