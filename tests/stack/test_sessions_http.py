"""Conversations over HTTP: what was said is there to read, to take along and to delete, for its owner alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.fake_vertex import FakeVertex
from tests.stack.harness import Chain, standalone


@dataclass
class Session:
    """A session of somebody, over HTTP."""

    chain: Chain
    session_id: str
    user_id: str

    async def say(self, message: str) -> dict[str, Any]:
        response = await self.chain.chat(message, session_id=self.session_id, user_id=self.user_id)
        return response.json()

    async def get(self, path: str = "", **params: Any) -> httpx.Response:
        return await self.request("GET", path, params=params)

    async def request(self, method: str, path: str = "", **options: Any) -> httpx.Response:
        url = f"/sessions/{quote(self.session_id, safe='')}{path}"
        return await self.chain.http.request(method, url, headers=self.headers, **options)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return {b"X-User-Id": self.user_id.encode()}


@pytest.fixture
def session(chain: Chain, vertex: FakeVertex, unique) -> Session:
    return Session(chain, unique("가/나 session"), unique("사용자"))


async def test_what_was_said_is_there_to_read(session: Session, vertex: FakeVertex, unique):
    asked = [unique(f"question {number}") for number in range(5)]
    answers = []
    for number, question in enumerate(asked):
        vertex.answer(f"answer {number}")
        answer = await session.say(question)
        assert answer["metadata"]["history"] == "stored"
        answers.append(answer)

    listed = (await session.chain.http.get("/sessions", headers=session.headers)).json()
    assert listed["next_cursor"] is None
    (summary,) = listed["sessions"]
    one = (await session.get()).json()
    assert summary.items() <= one.items()
    assert (one["session_id"], one["turns"], one["title"]) == (session.session_id, 5, asked[0])
    assert one["persona"] == answers[-1]["persona_used"]

    oldest = (await session.get("/messages", limit=3)).json()
    rest = (await session.get("/messages", limit=3, cursor=oldest["next_cursor"])).json()
    assert rest["next_cursor"] is None
    messages = oldest["messages"] + rest["messages"]
    assert [(message["message"], message["reply"]) for message in messages] == [
        (question, f"answer {number}") for number, question in enumerate(asked)
    ]
    for message, answer in zip(messages, answers, strict=True):
        assert message["persona_used"] == answer["persona_used"]
        assert message["resonance_key"] == answer["resonance_key"]
        assert message["confidence"] == pytest.approx(answer["confidence"])
    newest = (await session.get("/messages", order="desc", limit=5)).json()
    assert newest["messages"] == messages[::-1]
    export = await session.get("/export")
    assert [json.loads(line) for line in export.text.splitlines()] == messages


async def test_a_stream_says_done_when_its_turn_is_stored(session: Session, unique):
    body = {"message": unique("hi"), "session_id": session.session_id, "user_id": session.user_id}
    response = await session.chain.http.post("/chat", json=body, headers={"Accept": "text/event-stream"})
    end = json.loads(response.text.strip().split("data: ")[-1])
    assert end["metadata"]["history"] == "stored"
    assert (await session.get()).json()["turns"] == 1


async def test_a_session_is_its_user_s_alone(session: Session, unique):
    await session.say(unique("hi"))
    other = Session(session.chain, session.session_id, unique("somebody else"))
    for path in ("", "/messages", "/export"):
        assert (await other.get(path)).json()["reason"] == "SESSION_NOT_FOUND"
    assert (await other.request("DELETE")).status_code == 404
    assert (await session.chain.http.get("/sessions", headers=other.headers)).json()["sessions"] == []
    assert (await session.get()).status_code == 200


async def test_what_is_deleted_is_gone(session: Session, unique):
    await session.say(unique("hi"))
    assert (await session.request("DELETE")).status_code == 204
    assert (await session.request("DELETE")).status_code == 404
    assert (await session.get("/messages")).status_code == 404
    assert (await session.chain.http.get("/sessions", headers=session.headers)).json()["sessions"] == []


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/sessions?cursor=nonsense", ["query", "cursor"]),
        ("/sessions/x/messages?cursor=nonsense", ["query", "cursor"]),
        (f"/sessions/{'x' * 129}", ["path", "session_id"]),
        ("/sessions/%00", ["path", "session_id"]),
    ],
)
async def test_bad_parameters_are_named(chain: Chain, path, place):
    response = await chain.http.get(path)
    assert response.status_code == 422
    assert [item["loc"] for item in response.json()["detail"]] == [place]


async def test_without_a_database_the_chat_answers_and_sessions_do_not():
    env = {"ION_LLM_BACKEND": "offline", "DATABASE_URL": "postgresql://ion:ion@127.0.0.1:1/ion"}
    async with standalone(env) as chain:
        whole = (await chain.chat("hello", session_id="s")).json()
        assert whole["metadata"]["history"] == "unavailable"
        assert whole["metadata"]["llm"]
        response = await chain.http.get("/sessions")
        assert (response.status_code, response.json()["reason"]) == (503, "DATABASE_UNAVAILABLE")
        assert int(response.headers["Retry-After"]) >= 1
