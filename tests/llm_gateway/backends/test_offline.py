import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_gateway.backends import Backend
from llm_gateway.backends.offline import OfflineBackend, topic_of
from llm_gateway.generation import FinishReason, GenerationRequest, ModelRejected, Parameters, Prompt, Reply, Role, Turn
from llm_gateway.tokens import estimate_tokens

MARK_EN = "(offline reply: no model was called)"
MARK_KO = "(오프라인 응답: 모델을 부르지 않았습니다)"
VOICES = ["Lua", "Elro", "Riri", "Nana"]
LANGUAGES = st.sampled_from(["ko", "ko-KR", "en", "de", ""])


def request_of(message: str, *, persona: str = "Lua", language: str = "en", model: str = "any") -> GenerationRequest:
    prompt = Prompt("You are someone.", (Turn(Role.USER, message),))
    return GenerationRequest(model, prompt, persona=persona, language=language)


async def reply_to(request: GenerationRequest) -> Reply:
    backend: Backend = OfflineBackend()
    return await backend.generate(request, location=backend.locations[0], timeout_seconds=1.0)


async def stream_of(request: GenerationRequest) -> list[str | Reply]:
    backend: Backend = OfflineBackend()
    return [event async for event in backend.stream(request, location=backend.locations[0], timeout_seconds=1.0)]


@settings(deadline=None)
@given(
    message=st.text(min_size=1, max_size=300),
    persona=st.sampled_from([*VOICES, "Somebody", ""]),
    language=LANGUAGES,
)
async def test_any_request_gets_one_marked_reply_again_and_again(message, persona, language):
    request = request_of(message, persona=persona, language=language)
    first, second = await reply_to(request), await reply_to(request)
    assert first == second
    assert first.offline
    assert first.finish_reason is FinishReason.STOP
    assert (first.model, first.location) == ("offline", "local")
    assert first.text.splitlines()[-1] == (MARK_KO if language.startswith("ko") else MARK_EN)
    assert first.usage.output_tokens == estimate_tokens(first.text) < 200


@settings(deadline=None)
@given(message=st.text(min_size=1, max_size=300), persona=st.sampled_from([*VOICES, ""]), language=LANGUAGES)
async def test_a_stream_is_the_reply_in_runs_of_a_few_words(message, persona, language):
    request = request_of(message, persona=persona, language=language)
    *pieces, reply = await stream_of(request)
    assert reply == await reply_to(request)
    assert "".join(pieces) == reply.text
    assert len(pieces) > 1
    assert all(1 <= len(piece.split()) <= 4 for piece in pieces)


def test_replies_do_not_depend_on_the_hash_seed_of_the_process():
    program = (
        "import asyncio; from llm_gateway.backends.offline import *; from llm_gateway.generation import *\n"
        "for word in 'abcdefghij':\n"
        "    request = GenerationRequest('m', Prompt('', (Turn(Role.USER, word),)), persona='Lua')\n"
        "    reply = OfflineBackend().generate(request, location='local', timeout_seconds=1.0)\n"
        "    print(ascii(asyncio.run(reply).text))\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1] != b""


@pytest.mark.parametrize(
    ("persona", "signs"),
    [
        ("Lua", ["🌊"]),
        ("Elro", ["📐", "\n1. ", "\n2. ", "\n3. "]),
        ("Riri", ["📊", "\nData: ", "\nInsight: ", "\nRecommendation: "]),
        ("Nana", ["✒️", "\n- [ ] "]),
    ],
)
async def test_each_persona_has_its_own_voice(persona, signs):
    reply = await reply_to(request_of("The deploy is broken", persona=persona))
    assert [sign for sign in signs if sign not in reply.text] == []


async def test_the_voice_is_found_whatever_the_case_of_the_persona():
    assert "🌊" in (await reply_to(request_of("hi", persona="LUA"))).text


async def test_an_unknown_persona_speaks_neutrally():
    reply = await reply_to(request_of("The deploy is broken", persona="Zed"))
    assert not any(symbol in reply.text for symbol in "🌊📐📊✒")
    assert "The deploy is broken" in reply.text


@pytest.mark.parametrize("persona", [*VOICES, "Zed"])
async def test_korean_is_answered_in_korean_throughout(persona):
    reply = await reply_to(request_of("배포가 또 깨졌어요", persona=persona, language="ko"))
    assert "배포가 또 깨졌어요" in reply.text
    without_marks = [line for line in reply.text.splitlines() if line.strip()]
    assert all(any("가" <= character <= "힣" for character in line) for line in without_marks)


@pytest.mark.parametrize("persona", VOICES)
async def test_different_messages_get_different_phrasings(persona):
    replies = [(await reply_to(request_of(f"message {number}", persona=persona))).text for number in range(40)]
    openings = {text.splitlines()[0].partition("message")[0] for text in replies}
    assert len(openings) > 1


async def test_the_last_turn_is_quoted_not_the_instructions_or_earlier_turns():
    turns = (Turn(Role.USER, "earlier words"), Turn(Role.MODEL, "yes"), Turn(Role.USER, "the newest question"))
    request = GenerationRequest("any", Prompt("secret instruction", turns), persona="Elro")
    text = (await reply_to(request)).text
    assert "the newest question" in text
    assert "earlier words" not in text
    assert "secret instruction" not in text


async def test_braces_in_the_message_stay_text():
    assert "{topic} {0} {mark}" in (await reply_to(request_of("{topic} {0} {mark}"))).text


@pytest.mark.parametrize(
    ("message", "topic"),
    [
        ("a", "a"),
        ("Why?!", "Why"),
        ("two\n lines\there", "two lines here"),
        ("?!", ""),
        ("Why does the deploy fail each time with this error", "Why does the deploy fail each time with…"),
        ("가" * 60, "가" * 39 + "…"),
    ],
)
def test_topic_is_a_short_piece_of_the_message(message, topic):
    assert topic_of(message) == topic


@given(st.text(max_size=300))
def test_a_topic_is_one_short_line(message):
    topic = topic_of(message)
    assert len(topic) <= 40
    assert len(topic.splitlines()) <= 1


async def test_a_message_without_words_gets_a_topic_too():
    assert "your message" in (await reply_to(request_of("?!"))).text


async def test_tokens_are_estimated_from_all_that_is_sent():
    prompt = Prompt("12345678", (Turn(Role.USER, "1234"), Turn(Role.MODEL, "가나"), Turn(Role.USER, "12345")))
    assert await OfflineBackend().count_tokens("any", prompt, location="local", timeout_seconds=1.0) == 2 + 1 + 1 + 2
    assert (await reply_to(GenerationRequest("any", prompt))).usage.input_tokens == 6


@pytest.mark.parametrize("ask", [reply_to, stream_of])
async def test_json_after_a_schema_is_refused_and_says_why(ask):
    """What it would make up would be taken for a model's judgement."""
    parameters = Parameters(response_json_schema='{"type": "object"}')
    with pytest.raises(ModelRejected, match="offline backend"):
        await ask(GenerationRequest("any", Prompt("", (Turn(Role.USER, "a"),)), parameters))
