"""`ion top`, as people run it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import httpx
import pytest
import pytest_asyncio

from standalone.top import live
from tests.stack.harness import Chain, free_port
from tests.stack.harness import standalone as running
from tests.standalone.command import ion, jsons
from tests.standalone.terminal import CTRL_C, terminal

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    async with running({"ION_STATE_DIR": str(tmp_path_factory.mktemp("state"))}) as started:
        yield started


async def talk(chain: Chain) -> None:
    while True:
        await chain.http.post("/chat", json={"message": "hello"})


async def test_two_looks_at_a_running_ion(chain):
    talking = asyncio.create_task(talk(chain))
    away = f"http://127.0.0.1:{free_port()}"
    done = await asyncio.to_thread(ion, "top", chain.url, away, "--once", "--json", "--interval", "0.5")
    talking.cancel()
    assert done.returncode == 1  # one was not seen
    (told,) = jsons(done.stdout)
    assert told["requests"]["per_second"] > 0
    assert told["requests"]["errors"] == 0
    assert [traffic["route"] for traffic in told["routes"]] == ["/chat"]
    times = told["requests"]["times"]
    assert 0 < times["p50"] <= times["p95"] <= times["p99"]
    assert sum(told["personas"].values()) == pytest.approx(1)
    assert told["cache"]["near"] > 0.9
    assert [(region["name"], region["breaker"]) for region in told["regions"]] == [("local", "closed")]
    served, unseen = told["processes"]
    assert (served["service"], served["url"], served["problem"]) == ("ion", f"{chain.url}/metrics", "")
    assert served["memory_bytes"] > 20e6
    assert served["cpu"] > 0
    assert (unseen["problem"], unseen["service"]) == ("cannot be reached", "")


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ([200, 200], ""),
        ([503, 200], "was seen once"),
        ([200, 503], "answers with 503"),
        ([401, 200, 200], ""),  # it asks for the key
    ],
)
async def test_once_is_well_where_both_looks_saw_something(monkeypatch, capsys, answers, problem):
    coming = iter(answers)
    transport = httpx.MockTransport(lambda _: httpx.Response(next(coming), text="up 1\n"))
    monkeypatch.setattr(httpx, "AsyncClient", partial(httpx.AsyncClient, transport=transport))
    assert await live.once(["http://ion/metrics"], 0, "Bearer k", as_json=True) is not bool(problem)
    (told,) = jsons(capsys.readouterr().out)
    assert [process["problem"] for process in told["processes"]] == [problem]


async def test_it_moves_until_it_is_interrupted(chain):
    async with terminal("top", chain.url, "--interval", "0.1") as shown:
        for _ in range(3):
            await shown.shows("Processes")
            await shown.shows("/metrics")
        shown.press(CTRL_C)
        assert await shown.ended() == 130
    assert "Traceback" not in shown.text


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://ion", "http://"])
async def test_what_is_no_address_is_wrong_usage(url):
    done = await asyncio.to_thread(ion, "top", url, "--once")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "must be a URL" in done.stderr
