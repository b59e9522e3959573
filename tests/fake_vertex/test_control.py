"""Outages, errors and laws switched on and off while it runs."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
import pytest
from google.api_core.exceptions import DeadlineExceeded, ServiceUnavailable
from google.cloud.aiplatform_v1 import PredictionServiceAsyncClient
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceGrpcAsyncIOTransport
from google.cloud.aiplatform_v1.types import Content, GenerateContentRequest, Part

from tests.fake_vertex.__main__ import fake_of, parse_options
from tests.fake_vertex.control import follow, parse_command, parse_script, serve_control
from tests.fake_vertex.law import LatencyLaw

RESOURCE = "projects/p/locations/us-central1/publishers/google/models/gemini-3.5-flash"
REQUEST = GenerateContentRequest(model=RESOURCE, contents=[Content(role="user", parts=[Part(text="hello")])])


async def outcomes(client, count: int) -> list[bool]:
    """Whether each of so many calls was answered."""
    return [await answers(client) for _ in range(count)]


async def answers(client, timeout_seconds: float = 5) -> bool:
    try:
        return bool((await client.generate_content(REQUEST, timeout=timeout_seconds)).candidates)
    except ServiceUnavailable:
        return False


async def test_a_share_of_calls_fails_the_same_ones_for_the_same_seed(vertex, client):
    vertex.error_rate(0.5, seed=7)
    first = await outcomes(client, 20)
    vertex.error_rate(0.5, seed=7)
    assert first == await outcomes(client, 20)
    assert 3 <= sum(first) <= 17
    vertex.error_rate(0.5, seed=8)
    assert first != await outcomes(client, 20)


async def test_all_or_none_fail_where_that_is_the_share(vertex, client):
    vertex.error_rate(1.0)
    assert not any(await outcomes(client, 5))
    vertex.error_rate(0.0)
    assert all(await outcomes(client, 5))


async def test_errors_come_without_the_delay_of_an_answer(vertex, client):
    vertex.delay(60)
    vertex.error_rate(1.0)
    assert not await answers(client)


async def test_what_is_planned_comes_before_errors(vertex, client):
    vertex.error_rate(1.0)
    vertex.block_for_safety(times=1)
    assert await outcomes(client, 2) == [True, False]


async def test_commands_switch_it_and_healthy_mends_all(vertex, client):
    port = vertex.port
    for bad, answered in (("errors=1", False), ("down", False)):
        await parse_command(bad)(vertex)
        assert await answers(client) is answered
        await parse_command("healthy")(vertex)
        assert await answers_soon(client)
    assert vertex.port == port
    await parse_command("hang")(vertex)
    with pytest.raises(DeadlineExceeded):
        await answers(client, timeout_seconds=0.2)
    hanging = asyncio.create_task(answers(client))
    await vertex.wait_for_calls(len(vertex.calls) + 1)
    await parse_command("healthy")(vertex)
    assert await hanging


async def answers_soon(client) -> bool:
    """The channel connects again after a pause of its own."""
    async with asyncio.timeout(10):
        while not await answers(client):
            pass
    return True


async def test_hanging_after_an_outage_takes_calls_again(vertex):
    await parse_command("down")(vertex)
    await parse_command("hang")(vertex)
    assert vertex.listening


async def test_commands_set_the_law_and_a_plain_delay(vertex):
    await parse_command("law=7,0.3")(vertex)
    law = LatencyLaw(seed="7", location="us-central1", first_token_share=0.3)
    assert vertex.next_delay() == law.draw()
    await parse_command("delay=0.25")(vertex)
    assert (vertex.next_delay().first_seconds, vertex.next_delay().rest_seconds) == (0.25, 0)


async def test_a_script_is_followed(vertex):
    await follow(vertex, parse_script("0:errors=1; 0:down"))
    assert not vertex.listening
    await follow(vertex, parse_script("0:down;0:healthy"))
    assert vertex.listening


async def test_a_script_waits_for_its_times(vertex):
    following = asyncio.create_task(follow(vertex, parse_script("0:law=1;3600:down")))
    law = LatencyLaw(seed="1", location="us-central1")
    async with asyncio.timeout(5):
        while not vertex.next_delay().total_seconds:
            await asyncio.sleep(0)
    assert vertex.next_delay() == [law.draw() for _ in range(2)][-1]
    assert vertex.listening
    following.cancel()


@pytest.mark.parametrize("text", ["up", "errors", "errors=2", "errors=-1", "delay=", "law=", "down=1", "hang; down"])
def test_a_command_that_is_none_is_refused_with_what_is_allowed(text):
    with pytest.raises(ValueError, match="none of healthy, down, hang"):
        parse_command(text)


@pytest.mark.parametrize("text", ["down", "soon:down", "-1:down", "5:down;1:healthy", "1:nothing"])
def test_a_script_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="is "):
        parse_script(text)


async def test_control_takes_a_command_a_line(vertex, client):
    async with await serve_control(vertex, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await tell(port, "errors=1", "nonsense", "counts") == ["ok", "error: ", "{}"]
        assert not await answers(client)
        assert await tell(port, "healthy", "counts") == ["ok", '{"GenerateContent": 1}']
        assert await answers(client)


async def tell(port: int, *lines: str) -> list[str]:
    """The answers, errors without their explanations."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("".join(f"{line}\n" for line in lines).encode())
    writer.write_eof()
    async with asyncio.timeout(5):
        answered = (await reader.read()).decode().splitlines()
    writer.close()
    return [re.sub(r"(?<=^error: ).*", "", answer) for answer in answered]


async def test_options_set_the_law_and_errors():
    vertex = fake_of(parse_options(["--law", "--seed", "9", "--first-token-share", "0.3", "--error-rate", "1"]))
    assert vertex.next_delay() == LatencyLaw(seed="9", first_token_share=0.3).draw()
    async with vertex, client_of(vertex.endpoint) as client:
        assert not await answers(client)


@asynccontextmanager
async def client_of(endpoint: str) -> AsyncIterator[PredictionServiceAsyncClient]:
    async with grpc.aio.insecure_channel(endpoint) as channel:
        yield PredictionServiceAsyncClient(transport=PredictionServiceGrpcAsyncIOTransport(channel=channel))


async def test_as_a_program_it_follows_its_script_and_its_control_port(unused_port):
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fake_vertex", "--script", "0:errors=1", "--control-port", str(unused_port)),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        port = re.search(rb"(\d+)\n$", await program.stdout.readline())[1].decode()
        async with client_of(f"127.0.0.1:{port}") as client:
            assert not await answers(client)
            assert await tell(unused_port, "healthy") == ["ok"]
            assert await answers(client)
        program.send_signal(signal.SIGTERM)
        assert await program.wait() == 0


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        return int(server.sockets[0].getsockname()[1])
