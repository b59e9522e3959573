"""The reader's contract, whatever its weights; what it makes of messages is judged by `ion eval`.

The one exception are the examples of the reference, which every version must read right.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router_service.analysis import PACES, READ_INTENTS, TONES, TOPICS, Reader, WeightsError, features
from router_service.analysis.reader import SHIPPED, load_weights, save_weights

SAMPLES = Path(__file__).parents[3] / "samples" / "messages.jsonl"
READER = Reader.load()
WEIGHTS, VERSION = load_weights(SHIPPED)
MESSAGES = [json.loads(line)["message"] for line in SAMPLES.read_text(encoding="utf-8").splitlines()]

any_text = st.text(st.characters(exclude_categories=()), max_size=300)
words = st.sampled_from([word for message in MESSAGES for word in message.split()])
chat_text = st.lists(words, max_size=40).map(" ".join)


def likeliest(message):
    (row,) = READER.probabilities([message]).tone
    return TONES[row.argmax()]


# Examples expected of any version


@pytest.mark.parametrize(
    ("message", "tones"),
    [
        ("이게 왜 이렇게 작동하는지 궁금해요.", {"curious"}),
        ("빨리 해결해야 해요! 급합니다!", {"urgent"}),
        ("왜 이게 안 되는지 모르겠어요. 답답해요.", {"frustrated"}),
        ("코드 리뷰를 진행하겠습니다.", {"calm"}),
        ("데이터 분석 결과를 확인해주세요. 리포트가 준비되었습니다.", {"calm", "analytical"}),
    ],
)
def test_examples_of_the_reference_have_their_tone(message, tones):
    assert READER.read(message).tone.primary in tones


def test_short_exclamations_are_a_burst():
    assert READER.read("뭐야! 안 돼! 왜?!").rhythm.pace == "burst"


# The same for the same text


def test_a_message_is_read_the_same_again_and_by_another_reader():
    again = Reader.load()
    assert [READER.read(message) for message in MESSAGES] == [again.read(message) for message in MESSAGES]
    assert READER.read_all(MESSAGES) == READER.read_all(MESSAGES)


def test_a_message_is_read_the_same_alone_and_in_every_batch():
    """Of thousands, since what differs is a last digit that seldom shows."""
    random = np.random.default_rng(0)
    vocabulary = [word for message in MESSAGES for word in message.split()]
    made = [" ".join(random.choice(vocabulary, random.integers(1, 40))) for _ in range(3000)]
    together = READER.read_all(made)
    assert together == [READER.read(message) for message in made]
    assert together[::-1] == READER.read_all(made[::-1])
    assert together[100:117] == READER.read_all(made[100:117])


@given(st.lists(st.one_of(any_text, chat_text), max_size=5))
@example(["", " ", "\x00", "\ud800", "İ" * 1000])
def test_any_texts_are_read_the_same_alone_and_together(messages):
    assert READER.read_all(messages) == [READER.read(message) for message in messages]


def test_no_messages_are_no_readings():
    assert READER.read_all([]) == []
    assert READER.probabilities([]).tone.shape == (0, len(TONES))


# Any text whatever


@settings(deadline=None)
@given(st.one_of(any_text, chat_text))
@example("")
@example(" \t\n\u3000")
@example("\x00\x02\x03\x04")
@example("\ud800 왜?\udfff")
@example("\u202eدعم الخادم معطل\u202c שלום")
@example("👩\u200d💻" * 50)
@example("İ" * 200)
@example("아" * 10_000)
@example("서버 down?! " * 1000)
@example("\u0301" * 10_000)
def test_any_text_is_read_within_the_vocabulary_and_bounds(message):
    found = READER.read(message)
    tone = found.tone
    assert tone.primary in TONES
    assert tone.secondary in {"", *TONES} - {tone.primary}
    assert (tone.secondary_confidence > 0) == bool(tone.secondary)
    assert found.intent.primary in READ_INTENTS
    assert found.rhythm.pace in PACES
    assert found.language in {"ko", "en"}
    assert dict(found.topics).keys() <= set(TOPICS)
    shares = [share for _, share in found.topics]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1.0002  # each is rounded to 4 digits
    for value in (tone.confidence, tone.secondary_confidence, found.intent.confidence, *shares):
        assert 0 <= value <= 1


def test_full_width_marks_and_decomposed_hangul_are_read_as_their_plain_forms():
    assert READER.read("왜 또 안 돼요？！　정말，") == READER.read("왜 또 안 돼요?! 정말,")
    assert READER.read("\u1102\u1166 \u110b\u1161\u11ab") == READER.read("네 안")


@settings(deadline=None)
@given(st.lists(st.one_of(any_text, chat_text), min_size=1, max_size=5))
def test_the_probabilities_of_every_head_sum_to_1(messages):
    found = READER.probabilities(messages)
    for chances, labels in (
        (found.tone, len(TONES)),
        (found.intent, len(READ_INTENTS)),
        (found.subject, len(TOPICS) + 1),
    ):
        assert chances.shape == (len(messages), labels)
        assert chances.min() >= 0
        assert chances.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_a_reading_names_what_is_likeliest():
    found = READER.probabilities(MESSAGES)
    for row, analysis in enumerate(READER.read_all(MESSAGES)):
        assert analysis.intent.primary == READ_INTENTS[found.intent[row].argmax()]
        assert analysis.intent.confidence == pytest.approx(found.intent[row].max(), abs=1e-4)
        if not analysis.tone.abstained:
            assert analysis.tone.primary == TONES[found.tone[row].argmax()]
            assert analysis.tone.confidence == pytest.approx(found.tone[row].max(), abs=1e-4)


# Abstaining


def test_below_the_threshold_the_tone_is_calm_with_its_own_probability_and_the_likeliest_is_second():
    unsure = Reader(replace(WEIGHTS, abstain=np.float32(1.5)))
    chances = unsure.probabilities(MESSAGES).tone
    for row, analysis in zip(chances, unsure.read_all(MESSAGES), strict=True):
        tone, best = analysis.tone, TONES[row.argmax()]
        assert (tone.primary, tone.abstained) == ("calm", True)
        assert tone.confidence == pytest.approx(row[TONES.index("calm")], abs=1e-4)
        assert tone.secondary == ("" if best == "calm" else best)


def test_above_the_threshold_it_never_abstains():
    sure = Reader(replace(WEIGHTS, abstain=np.float32(0)))
    assert not any(analysis.tone.abstained for analysis in sure.read_all(MESSAGES))


def test_the_threshold_is_that_of_the_weights():
    best = READER.probabilities(MESSAGES).tone.max(axis=1)
    reader = Reader(replace(WEIGHTS, abstain=np.float32(np.median(best))))
    abstained = [analysis.tone.abstained for analysis in reader.read_all(MESSAGES)]
    clear = np.abs(best - np.median(best)) > 1e-3
    assert np.array_equal(np.array(abstained)[clear], (best < np.median(best))[clear])


# Evidence


@settings(deadline=None)
@given(st.one_of(any_text, chat_text), st.integers(0, 5))
@example("İSTANBUL down down " + "x" * 2000, 3)
def test_evidence_is_words_of_the_text_that_spoke_for_the_tone_strongest_first(message, limit):
    reading = READER.read(message, limit)
    found = reading.evidence
    assert replace(reading, evidence=()) == READER.read(message)
    text = features.readable(message).lower()
    assert len(found) <= limit
    assert all(each.text and each.text.lower() in text and not each.text.isspace() for each in found)
    weights = [each.weight for each in found]
    assert weights == sorted(weights, reverse=True)
    assert all(weight >= 0 for weight in weights)
    assert len({each.text for each in found}) == len(found)


@pytest.mark.parametrize(
    ("message", "tone"),
    [
        ("운영 서버가 죽어서 지금 당장 복구해야 합니다", "urgent"),
        ("이 설정 때문에 하루를 날렸더니 너무 짜증나요", "frustrated"),
        ("내일 발표인데 실수할까 봐 너무 걱정돼요", "anxious"),
        ("회의 내용이 무슨 말인지 헷갈려요", "confused"),
        ("I am so annoyed, this build broke again", "frustrated"),
        ("I am worried about the interview tomorrow", "anxious"),
        ("we need this hotfix immediately, production is down", "urgent"),
        ("I am confused by these two settings", "confused"),
    ],
)
def test_without_the_strongest_word_the_tone_is_less_likely(message, tone):
    reading = READER.read(message, 3)
    assert reading.tone.primary == tone
    strongest = reading.evidence[0].text
    assert strongest in message
    column = TONES.index(tone)
    whole, without = READER.probabilities([message, message.replace(strongest, "", 1)]).tone[:, column]
    assert without < whole


def test_evidence_keeps_the_case_of_the_text():
    found = READER.read("PROD IS DOWN, FIX IT NOW", 10).evidence
    assert found
    assert all(each.text.isupper() for each in found)


def test_evidence_is_whole_words_where_lower_case_is_longer():
    text = "İİİ DOWN BROKEN ASAP"
    shown = {each.text for each in READER.read(text, 10).evidence}
    assert shown
    assert shown <= set(text.split())


def test_evidence_of_a_long_text_is_runs_of_words_and_reads_no_more_than_a_short_one(monkeypatch):
    read = []
    chances = Reader._chances
    monkeypatch.setattr(Reader, "_chances", lambda self, texts: read.extend(texts) or chances(self, texts))
    READER.read("everything is broken again and I hate it " * 25, 3)
    assert sum(map(len, read)) < 8000
    read.clear()
    READER.read("everything is broken again and I hate it", 3)
    assert len(read) == 1 + 8  # whole, and each of eight words left out


# Weights


def test_the_shipped_weights_are_of_at_most_4_mb():
    assert SHIPPED.stat().st_size <= 4_000_000


def test_the_version_is_that_of_the_manifest():
    manifest = json.loads(SHIPPED.with_suffix(".json").read_text(encoding="utf-8"))
    assert READER.version == VERSION == manifest["version"]
    assert hashlib.sha256(SHIPPED.read_bytes()).hexdigest() == manifest["sha256"]


def test_saved_weights_are_the_same_bytes_and_read_the_same(tmp_path):
    once, again = tmp_path / "once.npz", tmp_path / "again.npz"
    for path in (once, again):
        save_weights(WEIGHTS, path, version="7", note="메모")
    assert once.read_bytes() == again.read_bytes()
    loaded = Reader.load(once)
    assert loaded.version == "7"
    assert loaded.read_all(MESSAGES) == READER.read_all(MESSAGES)
    assert json.loads(once.with_suffix(".json").read_text("utf-8"))["note"] == "메모"


def written(path, data, manifest=None):
    """A file of weights whose checksum is right."""
    path.write_bytes(data)
    manifest = {"version": "1", "sha256": hashlib.sha256(data).hexdigest()} if manifest is None else manifest
    path.with_suffix(".json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest), "utf-8")
    return path


def refusal(path):
    with pytest.raises(WeightsError) as caught:
        Reader.load(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path.name}: ")
    return line


def test_missing_weights_are_one_line(tmp_path):
    refusal(tmp_path / "reader.npz")
    alone = tmp_path / "alone.npz"
    alone.write_bytes(SHIPPED.read_bytes())
    refusal(alone)


def test_weights_that_are_not_what_their_checksum_says_are_refused(tmp_path):
    data = bytearray(SHIPPED.read_bytes())
    path = written(tmp_path / "reader.npz", bytes(data))
    assert Reader.load(path).read("hello") == READER.read("hello")
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "checksum" in refusal(path)


@pytest.mark.parametrize(
    "manifest", ["", "{", "[]", "null", '"x"', "{}", {"version": "1"}, {"sha256": 5, "version": 1}]
)
def test_a_damaged_manifest_is_one_line(tmp_path, manifest):
    refusal(written(tmp_path / "reader.npz", SHIPPED.read_bytes(), manifest))


@pytest.mark.parametrize(
    "damaged",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"PK\x03\x04" + bytes(100),
        lambda data: b"hello",
    ],
    ids=["empty", "half", "zip of nothing", "text"],
)
def test_damaged_weights_are_one_line_though_their_checksum_is_right(tmp_path, damaged):
    refusal(written(tmp_path / "reader.npz", damaged(SHIPPED.read_bytes())))


def saved(path, **changes):
    arrays = vars(WEIGHTS) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return written(path, path.read_bytes())


@pytest.mark.parametrize("name", list(vars(WEIGHTS)))
def test_an_array_that_is_missing_or_of_another_shape_is_one_line(tmp_path, name):
    refusal(saved(tmp_path / "missing.npz", **{name: None}))
    array = getattr(WEIGHTS, name)
    for number, foreign in enumerate((array[..., np.newaxis], np.zeros((3, 2), array.dtype), np.float32(1))):
        if foreign.shape != array.shape:
            refusal(saved(tmp_path / f"foreign{number}.npz", **{name: foreign}))


@pytest.mark.parametrize(
    "changes",
    [
        {"more": np.zeros(3)},
        {"embedding": WEIGHTS.embedding[:-1]},
        {"embedding": WEIGHTS.embedding[:, :-1]},
        {"embedding": WEIGHTS.embedding.astype(np.float32)},
        {"kept": WEIGHTS.kept[:-8]},
        {"kept": np.tile(WEIGHTS.kept, 2)},
        {"hidden": WEIGHTS.hidden[:, :-1]},
        {"out": WEIGHTS.out[:, :-1], "skip": WEIGHTS.skip[:, :-1], "bias": WEIGHTS.bias[:-1]},
        {"bias": np.array([{}], dtype=object)},
    ],
    ids=["more", "rows", "width", "type", "fewer buckets", "more buckets", "units", "labels", "objects"],
)
def test_weights_of_another_reader_are_one_line(tmp_path, changes):
    refusal(saved(tmp_path / "foreign.npz", **changes))


# NumPy alone

ALONE = """
import sys
before = set(sys.modules)
from router_service.analysis import Reader
Reader.load().read("서버 down", 3)
Reader.load().read_all(["서버 down"])
places = {name.partition(".")[0]: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()
          if name not in before and "." not in name}
print(*sorted(name for name, place in places.items() if "site-packages" in place))
"""


def test_reading_needs_numpy_alone():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["numpy"]
