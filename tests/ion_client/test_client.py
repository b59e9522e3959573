"""What a client gives, over a whole ION: the same from every kind of client."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest

import ion_client
from ion_client import CacheControl
from tests.ion_client.kinds import KINDS, connected

MESSAGE = "Why does this keep failing? I am so tired of it."


@pytest.fixture
def everyone(chain):
    """A client of each kind."""
    http = chain.url.removeprefix("http://")
    return [connected(kind, grpc=chain.router, http=http) for kind in KINDS]


async def test_a_reply_says_all_about_itself(ion, unique):
    reply = await ion.chat(unique(MESSAGE))
    assert reply.text
    assert reply.persona == reply.choice.persona == "Lua"
    assert reply.choice.scores["Lua"] == reply.choice.confidence == max(reply.choice.scores.values())
    assert "Lua" in reply.choice.reasoning
    assert reply.choice.resonance_key.startswith("frustrated-")
    assert reply.analysis.tone.primary == "frustrated"
    assert reply.analysis.read_by == "reader"
    assert (reply.generation.cache, reply.generation.attempts) == ("miss", 1)
    assert reply.generation.usage.input_tokens > 0
    assert reply.timings.llm_ms > 0
    assert (reply.fallback, reply.failure, reply.session_id, reply.history) == (False, None, None, None)


async def test_every_kind_of_client_gives_equal_replies(everyone, vertex, unique):
    message, replies = unique(MESSAGE), []
    for client in everyone:
        async with client as ion:
            replies.append(await ion.chat(message, persona="riri", previous_persona="Elro"))
            async with ion.stream(message, persona="riri", previous_persona="Elro") as stream:
                replies.append(await stream.read())
    assert len(vertex.calls) == 1
    hit = replace(replies[0], generation=replace(replies[0].generation, cache="hit", attempts=0))
    assert replies[1:] == [hit] * 7
    assert (hit.choice.persona, hit.choice.pinned) == ("Riri", True)


async def test_every_kind_of_client_gives_equal_choices(everyone):
    choices, keys, personas = [], [], []
    for client in everyone:
        async with client as ion:
            choices.append(await ion.route("Could you plan my week with me? I cannot sleep, there is so much."))
            keys.append(await ion.route(resonance_key="calm-unheard-request", previous_persona="lua"))
            personas.append(await ion.personas())
    assert choices == [choices[0]] * 4
    assert keys == [keys[0]] * 4
    assert personas == [personas[0]] * 4
    choice, key = choices[0], keys[0]
    assert choice.analysis.topics
    assert choice.analysis.evidence
    assert choice.analysis.language == "en"
    made_of = choice.contributions[choice.persona]
    assert made_of.tone + made_of.pace + made_of.intent == pytest.approx(choice.choice.confidence)
    assert (key.defaulted_parts, key.analysis.read_by) == (("pace",), None)
    assert key.contributions["Lua"].session_bonus > 0
    assert [persona.name for persona in personas[0]] == sorted(choice.choice.scores)
    assert all(persona.traits and persona.korean_name for persona in personas[0])


async def test_an_apology_says_why(ion, vertex, unique):
    vertex.fail(grpc.StatusCode.INVALID_ARGUMENT)
    message = unique(MESSAGE)
    reply = await ion.chat(message)
    async with ion.stream(message) as stream:
        assert stream.choice.persona == "Lua"
        streamed = await stream.read()
    assert streamed == reply
    assert reply.fallback
    assert (reply.persona, reply.choice.confidence, reply.generation) == ("Nana", 0.0, None)
    assert reply.failure == ion_client.Failure("MODEL_REJECTED", retryable=False)
    assert "Lua" in reply.choice.scores


async def test_the_cache_does_as_the_call_says(ion, vertex, unique):
    message = unique(MESSAGE)
    await ion.chat(message, cache=CacheControl(no_store=True))
    assert (await ion.chat(message)).generation.cache == "miss"
    assert (await ion.chat(message)).generation.cache == "hit"
    assert (await ion.chat(message, cache=CacheControl(max_age_seconds=3600))).generation.cache == "hit"
    assert (await ion.chat(message, cache=CacheControl(max_age_seconds=0))).generation.cache == "miss"
    async with ion.stream(message, cache=CacheControl(bypass=True)) as stream:
        assert (await stream.read()).generation.cache == "off"
    assert len(vertex.calls) == 4


@pytest.mark.parametrize(
    ("message", "reason", "allowed"),
    [(" \n", "MESSAGE_BLANK", "must not be blank"), ("x" * 1001, "MESSAGE_TOO_LONG", "at most 1000 characters")],
)
async def test_a_bad_message_is_refused_with_its_field(ion, message, reason, allowed):
    for call in (ion.chat, ion.route):
        with pytest.raises(ion_client.InvalidRequest) as raised:
            await call(message)
        assert raised.value.reason == reason
        assert [violation.field for violation in raised.value.violations] == ["message"]
        assert allowed in raised.value.violations[0].description
        assert allowed in str(raised.value)
        assert not raised.value.retryable


async def test_message_and_key_together_are_refused_and_neither_as_well(ion):
    for given in ({"message": MESSAGE, "resonance_key": "calm-medium-inquiry"}, {}):
        with pytest.raises(ion_client.InvalidRequest) as raised:
            await ion.route(**given)
        assert raised.value.reason == "INVALID_FIELD"


async def test_an_unknown_persona_is_not_found(ion):
    for call in (ion.chat, lambda text, persona: ion.stream(text, persona=persona).read()):
        with pytest.raises(ion_client.NotFound) as raised:
            await call(MESSAGE, persona="nobody")
        assert raised.value.reason == "PERSONA_NOT_FOUND"


async def test_a_session_is_kept_told_exported_and_deleted(ion, vertex, unique):
    session, user = unique("계획/talk"), "지민"
    before = datetime.now(UTC) - timedelta(seconds=5)
    first = await ion.chat(unique(MESSAGE), session_id=session, user_id=user)
    async with ion.stream(unique("And now?\u2028Really?"), session_id=session, user_id=user) as stream:
        second = await stream.read()
    for reply in (first, second):
        assert (reply.session_id, reply.history) == (session, "stored")
        assert reply.timings.history_ms > 0
    assert len(vertex.calls[-1].request.contents) == 3  # the first turn, its answer, the second

    turns = [turn async for turn in ion.turns(session, user_id=user)]
    assert [turn.reply for turn in turns] == [first.text, second.text]
    assert [turn.persona for turn in turns] == [first.persona, second.persona]
    assert turns[0].resonance_key == first.choice.resonance_key
    assert turns[0].model == first.generation.model
    assert before < turns[0].created_at < turns[1].created_at
    assert turns[0].turn_id < turns[1].turn_id
    assert [turn async for turn in ion.turns(session, user_id=user, newest_first=True, page_size=1)] == turns[::-1]
    assert [turn async for turn in ion.export_session(session, user_id=user)] == turns

    info = await ion.session(session, user_id=user)
    assert (info.session_id, info.turns, info.persona) == (session, 2, second.persona)
    assert info.created_at <= info.updated_at
    assert turns[0].message.startswith(info.title)
    assert info in [found async for found in ion.sessions(user_id=user, page_size=1)]
    with pytest.raises(ion_client.NotFound):
        await ion.session(session, user_id="somebody else")

    assert await ion.delete_session(session, user_id=user) is None
    for call in (ion.session, ion.delete_session):
        with pytest.raises(ion_client.NotFound) as raised:
            await call(session, user_id=user)
        assert raised.value.reason == "SESSION_NOT_FOUND"
    with pytest.raises(ion_client.NotFound):
        await anext(ion.export_session(session, user_id=user))


async def test_sessions_of_more_than_a_page_come_one_after_the_other(ion, unique):
    sessions = [unique("page") for _ in range(3)]
    user = unique("reader")
    for session in sessions:
        await ion.chat(MESSAGE, session_id=session, user_id=user)
    listed = [info.session_id async for info in ion.sessions(user_id=user, page_size=2)]
    assert listed == sessions[::-1]


async def test_any_session_id_names_its_own_session(ion, unique):
    user = unique("reader")
    for session in ("..", "a/b?c#d", "%2e", " "):
        await ion.chat(MESSAGE, session_id=session, user_id=user)
        assert (await ion.session(session, user_id=user)).session_id == session
        await ion.delete_session(session, user_id=user)
    assert [found async for found in ion.sessions(user_id=user)] == []


async def test_what_would_ask_for_something_else_is_refused(ion):
    for call in (ion.session, ion.delete_session, lambda name: anext(ion.turns(name))):
        with pytest.raises(ValueError, match="session_id must not be empty"):
            await call("")
    for page_size in (0, 101):
        with pytest.raises(ValueError, match="page_size must be 1 to 100"):
            await anext(ion.sessions(page_size=page_size))


@pytest.mark.parametrize("kind", ["sync http", "async http"], indirect=True)
async def test_a_user_id_that_would_arrive_as_another_is_refused(ion):
    for user in (" ann", "ann\n", "a\tb"):
        with pytest.raises(ValueError, match="user_id must be printable"):
            await ion.session("talk", user_id=user)


async def test_a_closed_client_says_so(ion):
    await ion.personas()
    await ion.close()
    with pytest.raises(RuntimeError, match="closed"):
        await ion.personas()
