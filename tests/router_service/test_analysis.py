import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router_service.analysis import INTENTS, TONES, TOPICS, read
from router_service.lexicon import INTENT_CUES, TONE_CUES, TOPIC_CUES

SAMPLES = Path(__file__).parents[2] / "samples"
# 0.96 when the lexicon was written; the tones were given by a reader beforehand.
TONE_ACCURACY_FLOOR = 0.94

any_text = st.text(st.characters(exclude_categories=()), max_size=300)


def tone(message: str) -> str:
    return read(message).tone.primary


def intent(message: str) -> str:
    return read(message).intent.primary


def topics(message: str) -> list[str]:
    return [topic for topic, _ in read(message).topics]


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
def test_reference_examples_have_their_tone(message, tones):
    assert tone(message) in tones


def test_short_exclamations_are_a_burst():
    assert read("뭐야! 안 돼! 왜?!").rhythm.pace == "burst"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("운영 서버 죽었어요", "urgent"),
        ("긴급 상황입니다", "urgent"),
        ("need this asap", "urgent"),
        ("prod is down", "urgent"),
        ("발표가 걱정이에요", "anxious"),
        ("worried about tomorrow", "anxious"),
        ("같이 정리해요", "collaborative"),
        ("let's write it together", "collaborative"),
        ("무슨 말인지 헷갈려요", "confused"),
        ("I have no idea what this means", "confused"),
        ("A안이 B안보다 전환율이 12% 높습니다", "analytical"),
        ("median went from 40 ms to 55 ms", "analytical"),
        ("이게 되네 ㅋㅋㅋ", "playful"),
        ("lol it works", "playful"),
        ("또 깨졌어요 짜증나요", "frustrated"),
        ("I hate this toolchain", "frustrated"),
        ("how does a hash map grow?", "curious"),
        ("회의록 올렸습니다", "calm"),
    ],
)
def test_plain_cues_decide_the_tone(message, expected):
    assert tone(message) == expected


def test_a_question_mark_alone_does_not_outweigh_what_is_said():
    assert tone("왜 자꾸 이러는 거예요? 짜증나요?") == "frustrated"
    assert tone("운영 서버 죽었어요?") == "urgent"
    assert tone("파일 좀 옮겨 주실래요?") == "calm"


def test_a_longer_cue_takes_back_a_shorter_one():
    assert tone("no rush, it is not urgent") == "calm"
    assert tone("급하지 않아요") == "calm"
    assert tone("똑같이 나왔습니다") == "calm"
    assert tone("지금 갑니다") == "urgent"
    assert tone("지금까지 옵니다") == "calm"


def test_measured_values_lean_to_analytical():
    assert tone("red 12%, blue 9%") == "analytical"
    assert tone("red 12, blue 9") == "calm"


def test_english_cues_are_whole_words_and_stems_are_beginnings():
    assert tone("the knowledge base of Nowak") == "calm"  # not "now"
    assert tone("such worrying signs") == "anxious"
    assert tone("the unworrying signs") == "calm"


def test_english_cues_are_found_inside_a_korean_sentence():
    assert tone("prod에서 OOM 나요 asap로 봐주세요") == "urgent"
    assert tone("발표 앞두고 nervous해요") == "anxious"


def test_calm_with_little_confidence_when_nothing_shows():
    for message in ("네", "ok", "", "🙂", "사과 세 개"):
        found = read(message).tone
        assert (found.primary, found.secondary) == ("calm", "")
        assert found.confidence < 0.4


def test_more_evidence_gives_more_confidence_and_conflict_gives_less():
    one, two = read("걱정돼요").tone, read("걱정돼요 불안하고 초조해요").tone
    mixed = read("걱정돼요 짜증나요").tone
    assert one.confidence < two.confidence < 1
    assert mixed.confidence < one.confidence
    assert {mixed.primary, mixed.secondary} == {"anxious", "frustrated"}


def test_a_repeated_cue_counts_once():
    assert read("asap asap asap").tone == read("asap").tone


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("이 값은 어디에 저장되나요?", "inquiry"),
        ("where is this value stored?", "inquiry"),
        ("파일을 옮겨 주세요", "request"),
        ("Move the constants to their own module.", "request"),
        ("could you move the file", "request"),
        ("파일을 옮겼습니다.", "statement"),
        ("The file has moved.", "statement"),
        ("드디어 된다! 만세!", "expressive"),
        ("너무 속상해요 ㅠㅠ", "expressive"),
        ("어떻게 하면 좋을까요 조언 좀요", "seek_advice"),
        ("what would you recommend", "seek_advice"),
        ("오류 원인을 찾고 있어요", "problem_solving"),
        ("trying to debug a crash", "problem_solving"),
        ("입문 수준부터 배우고 싶어요", "learning"),
        ("I want to learn closures", "learning"),
        ("제 이해가 맞는지 봐주실 수 있나요", "validation"),
        ("is this right", "validation"),
        ("다음 달 로드맵과 우선순위", "planning"),
        ("a roadmap with three milestones", "planning"),
        ("돌아보면 많이 배운 것 같아요.", "reflection"),
        ("Looking back, I've learned a lot.", "reflection"),
    ],
)
def test_intents(message, expected):
    assert intent(message) == expected


def test_marks_per_sentence_decide_between_asking_and_exclaiming():
    assert intent("파랑? 빨강. 노랑.") == "inquiry"
    assert intent("파랑? 빨강. 노랑. 초록.") == "statement"
    assert intent("파랑! 빨강. 노랑.") == "expressive"
    assert intent("파랑! 빨강. 노랑. 초록.") == "statement"


@pytest.mark.parametrize(
    ("message", "pace"),
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
        ("?", "burst"),
        ("", "flowing"),
    ],
)
def test_pace_at_its_thresholds(message, pace):
    assert read(message).rhythm.pace == pace


def test_rhythm_counts_words_a_sentence_and_marks_a_character():
    rhythm = read("One two three... Four, five; six: seven?! ").rhythm
    assert rhythm.avg_length == 3.5
    assert rhythm.punctuation_density == 8 / 42


@pytest.mark.parametrize(
    ("full_width", "ascii_marks"),
    [
        ("이거 왜 이래요？！ 안 돼요。 정말，", "이거 왜 이래요?! 안 돼요. 정말,"),
        ("긴급！ 확인：서버；지금．", "긴급! 확인:서버;지금."),
        ("I don’t get it", "I don't get it"),
    ],
)
def test_full_width_marks_count_like_their_ascii_form(full_width, ascii_marks):
    assert read(full_width) == read(ascii_marks)


def test_decomposed_hangul_reads_like_composed():
    message = "배포가 또 깨져서 답답해요"
    assert read(unicodedata.normalize("NFD", message)) == read(message)


def test_case_does_not_matter_for_cues():
    assert read("PROD IS DOWN").tone == read("prod is down").tone


def test_no_punctuation_is_one_sentence():
    found = read("운영 서버 죽었어요 지금 결제가 하나도 안 됩니다")
    assert found.rhythm.avg_length == 8
    assert found.rhythm.punctuation_density == 0
    assert found.tone.primary == "urgent"


@pytest.mark.parametrize(
    ("message", "topic"),
    [
        ("이번 달 전환율 지표 좀 봐주세요", "data"),
        ("plot the churn metrics", "data"),
        ("이 함수 리팩터링하고 싶어요", "code"),
        ("refactor this class", "code"),
        ("요즘 너무 우울하고 외로워요", "feelings"),
        ("I feel sad and lonely", "feelings"),
        ("다음 주 일정과 우선순위를 정합시다", "planning"),
        ("draft the roadmap for the next sprint", "planning"),
    ],
)
def test_likeliest_topic_first(message, topic):
    assert topics(message)[0] == topic


def test_topics_are_ordered_by_share_and_absent_when_nothing_shows():
    shares = [share for _, share in read("전환율 데이터 지표를 뽑는 함수").topics]
    assert topics("전환율 데이터 지표를 뽑는 함수") == ["data", "code"]
    assert shares == sorted(shares, reverse=True)
    assert read("안녕").topics == ()


@pytest.mark.parametrize(
    ("message", "language"),
    [
        ("안녕하세요", "ko"),
        ("ㅋㅋ", "ko"),
        ("hello there", "en"),
        ("🙂🙂", "en"),
        ("", "en"),
        ("Kafka offset commit이 auto인지 manual인지 문서마다 달라요", "ko"),
        ('what does "답답" mean in a code review', "en"),
    ],
)
def test_share_of_hangul_decides_the_language(message, language):
    assert read(message).language == language


@given(any_text)
@example("")
@example("\x00")
@example("\ud800 왜?")
@example("👩\u200d💻" * 50)
@example("İ" * 200)
def test_any_text_reads_within_vocabulary_and_bounds(message):
    found = read(message)
    assert found.tone.primary in TONES
    assert found.tone.secondary in {"", *TONES} - {found.tone.primary}
    assert found.intent.primary in INTENTS
    assert found.rhythm.pace in {"burst", "flowing", "contemplative"}
    assert found.rhythm.avg_length >= 0
    assert found.language in {"ko", "en"}
    assert {topic for topic, _ in found.topics} <= set(TOPICS)
    for share in (found.tone.confidence, found.intent.confidence, found.rhythm.punctuation_density):
        assert 0 <= share <= 1
    assert sum(share for _, share in found.topics) <= 1
    assert all(share > 0 for _, share in found.topics)


@st.composite
def cued_text(draw):
    tables = [*TONE_CUES.values(), *INTENT_CUES.values(), *TOPIC_CUES.values()]
    cues = sorted(
        {cue.removesuffix("*") for weights in tables for joined in weights.values() for cue in joined.split("|")}
    )
    return draw(st.sampled_from([" ", "", "? ", "! "])).join(draw(st.lists(st.sampled_from(cues), max_size=20)))


@given(cued_text())
def test_any_mix_of_cues_reads_the_same_twice_and_within_bounds(message):
    found = read(message)
    assert found == read(message)
    assert 0 < found.tone.confidence < 1
    assert 0 < found.intent.confidence < 1
    assert sum(share for _, share in found.topics) < 1


@pytest.mark.parametrize("table", [TONE_CUES, INTENT_CUES, TOPIC_CUES])
def test_no_cue_stands_twice_under_a_label(table):
    for label, weights in table.items():
        counts = Counter(cue for joined in weights.values() for cue in joined.split("|"))
        assert not [cue for cue, count in counts.items() if count > 1 or not cue.strip("*")], label


@pytest.mark.parametrize(("table", "labels"), [(TONE_CUES, TONES), (TOPIC_CUES, TOPICS)])
def test_every_label_has_cues(table, labels):
    assert set(table) == set(labels)


def test_intent_cues_name_known_intents():
    assert set(INTENT_CUES) | {"statement"} == set(INTENTS)


def _lines(name):
    return [json.loads(line) for line in (SAMPLES / name).read_text(encoding="utf-8").splitlines()]


def test_samples_and_their_expectations_belong_together():
    messages, expected = _lines("messages.jsonl"), _lines("expected.jsonl")
    assert [line["id"] for line in messages] == [line["id"] for line in expected]
    assert len({line["message"] for line in messages}) == len(messages) >= 120
    assert all(line["tone"] in TONES and line["personas"] for line in expected)
    assert all(1 <= len(line["message"].strip()) <= 1000 for line in messages)


def test_tone_accuracy_on_the_samples():
    expected = {line["id"]: line["tone"] for line in _lines("expected.jsonl")}
    messages = _lines("messages.jsonl")
    right = sum(tone(line["message"]) == expected[line["id"]] for line in messages)
    assert right / len(messages) >= TONE_ACCURACY_FLOOR
