"""Input that no reader was made for: a clear refusal, or an answer that does not claim to be sure."""

from __future__ import annotations

import json

import pytest

PERSONAS = {"Lua", "Elro", "Riri", "Nana"}
# What is no message at all. As JSON, since some of it cannot be said in Python without being refused there.
REFUSED = {
    "empty": '""',
    "white space": '" \\n\\t\\u3000\\u2003 "',
    "1,001 characters": json.dumps("x" * 1001),
    "1,001 characters of two code units each": json.dumps("😀" * 1001),
    "100,000 characters": json.dumps("가" * 100_000),
    "a null": '"a\\u0000b"',
    "binary": json.dumps("".join(map(chr, range(32)))),
    "an escape sequence": '"\\u001b[2J"',
    "a delete": '"a\\u007fb"',
    "a lone high surrogate": '"a\\ud83d"',
    "a lone low surrogate": '"\\udc4d b"',
    "surrogates the wrong way round": '"\\udc4d\\ud83d"',
    "not UTF-8": b'"\xc3\x28"',
    "a number": "42",
    "nothing": "null",
}
# What can be answered, and not be read with any certainty.
UNREADABLE = {
    "Arabic": "مرحبا، كيف حالك اليوم؟",
    "Hebrew": "שלום, מה שלומך היום?",
    "Thai": "สวัสดีครับ วันนี้เป็นอย่างไรบ้าง",
    "Hindi": "नमस्ते, आज आप कैसे हैं",
    "Russian": "Добрый день, посмотрите пожалуйста отчёт",
    "Japanese": "こんにちは、今日はいい天気ですね",
    "emoji": "🎉🎈🎁",
    "one syllable that is no word": "뷁",
    "zero-width characters alone": "\u200b\u200d\ufeff",
}
ODD = {
    "zero-width characters within words": "he\u200bl\u200dlo wor\u2060ld",
    "right-to-left overrides": "\u202edlrow olleh\u202c",
    "combining marks": "e" + "\u0301" * 300,
    "half of Hangul": "ㄱㄴㄷㅏㅑㅓ",
    "decomposed Hangul": "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "a surrogate pair": "😀",
    "private use and unassigned": "\ue000\U000e0000\U0010ffff",
    "one character": "?",
    "1,000 characters": "x" * 1000,
    "1,000 emoji": "😀" * 1000,
    "1,000 words": "a " * 499 + "b",
    "line breaks": "one\r\n\ttwo\u2028three\u0085four",
    "braces and markup": "{persona} %s ${x} <b> \\ \" ' `rm` {{7*7}}",
}


@pytest.mark.parametrize("path", ["/chat", "/route"])
@pytest.mark.parametrize("message", REFUSED.values(), ids=REFUSED)
async def test_what_is_no_message_is_refused_and_named(chain, vertex, path, message):
    encoded = message if isinstance(message, bytes) else message.encode()
    body = b'{"message": ' + encoded + b"}"
    response = await chain.http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    answer = response.json()
    assert answer["detail"][0]["loc"][0] == "body"
    assert answer["detail"][0]["msg"]
    assert not vertex.calls


@pytest.mark.parametrize("message", UNREADABLE.values(), ids=UNREADABLE)
async def test_what_cannot_be_read_is_routed_without_claiming_to_be_sure(chain, message):
    routed = (await chain.http.post("/route", json={"message": message})).json()
    check_route(routed)
    assert routed["analysis"]["tone"]["abstained"] or routed["analysis"]["tone"]["confidence"] < 0.9


@pytest.mark.parametrize("message", ODD.values(), ids=ODD)
async def test_odd_text_is_routed_all_the_same(chain, message):
    response = await chain.http.post("/route", json={"message": message})
    assert response.status_code == 200
    check_route(response.json())


@pytest.mark.parametrize("message", [*UNREADABLE.values(), *ODD.values()], ids=[*UNREADABLE, *ODD])
async def test_it_is_answered_and_reaches_the_model_as_it_was(chain, vertex, message):
    response = await chain.chat(message)
    assert response.status_code == 200
    assert response.json()["persona_used"] in PERSONAS
    assert "fallback" not in response.json()["metadata"]
    for call in vertex.calls:  # none where the other test of a shape has been here: the reply is cached
        assert call.request.contents[0].parts[0].text == message.strip()


def check_route(routed) -> None:
    analysis = routed["analysis"]
    assert routed["persona"] in PERSONAS
    assert routed["reasoning"].endswith(".")
    assert analysis["language"] in ("ko", "en")
    assert sum(analysis["topic_probabilities"].values()) <= 1.001
    for share in (
        routed["confidence"],
        analysis["tone"]["confidence"],
        analysis["tone"]["secondary_confidence"],
        analysis["intent"]["confidence"],
        analysis["rhythm"]["confidence"],
        *routed["scores"].values(),
    ):
        assert 0 <= share <= 1
