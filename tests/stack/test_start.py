"""A start that cannot work ends at once, with one line that says why."""

from __future__ import annotations

import shutil
import socket

import pytest

from router_service.personas import DEFAULT_DIRECTORY
from tests.stack.harness import start

COMMANDS = {
    "standalone": ("standalone", "serve"),
    "gateway_http": ("gateway_http",),
    "router_service": ("router_service",),
    "llm_gateway": ("llm_gateway",),
}


async def refusal(command: tuple[str, ...], **env: str) -> str:
    async with start("refused", *command, env=env) as process:
        assert await process.ended() == 2
    assert len(process.lines) == 1, process.lines
    return process.lines[0]


@pytest.mark.parametrize(
    ("command", "env", "expected"),
    [
        ("standalone", {"ION_HTTP_BIND": "nonsense"}, ["ION_HTTP_BIND='nonsense'", "host:port"]),
        ("gateway_http", {"ION_HTTP_BIND": "127.0.0.1:99999"}, ["ION_HTTP_BIND", "65535"]),
        ("gateway_http", {"PORT": "http"}, ["PORT='http'", "integer"]),
        ("gateway_http", {"ION_REQUEST_TIMEOUT_SECONDS": "0"}, ["ION_REQUEST_TIMEOUT_SECONDS='0'", "greater than 0"]),
        ("router_service", {"ION_LOG_LEVEL": "loud"}, ["ION_LOG_LEVEL='loud'", "'debug'"]),
        ("llm_gateway", {"ION_CACHE_TTL_SECONDS": "soon"}, ["ION_CACHE_TTL_SECONDS='soon'", "integer"]),
        ("llm_gateway", {"ION_LLM_BACKEND": "gpt"}, ["ION_LLM_BACKEND='gpt'", "'vertex' or 'offline'"]),
        ("llm_gateway", {"ION_LLM_BACKEND": "vertex"}, ["GOOGLE_CLOUD_PROJECT", "project id"]),
        ("llm_gateway", {"REDIS_URL": "http://secret@host"}, ["REDIS_URL=(hidden)", "redis://"]),
        ("llm_gateway", {"ION_VERTEX_ENDPOINTS": "us-central1"}, ["ION_VERTEX_ENDPOINTS", "location=host:port"]),
    ],
)
async def test_bad_setting(command, env, expected):
    line = await refusal(COMMANDS[command], **env)
    assert all(text in line for text in expected), line


@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("standalone", "ION_HTTP_BIND"),
        ("gateway_http", "ION_HTTP_BIND"),
        ("router_service", "ION_ROUTER_BIND"),
        ("llm_gateway", "ION_LLM_BIND"),
    ],
)
async def test_port_in_use(command, variable):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        line = await refusal(COMMANDS[command], **{variable: bind})
    assert f"{variable}={bind}" in line


@pytest.mark.parametrize("command", ["standalone", "router_service"])
async def test_persona_file_with_a_weight_of_seven(command, tmp_path):
    shutil.copytree(DEFAULT_DIRECTORY, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "riri.toml").read_text("utf-8")
    (tmp_path / "riri.toml").write_text(text.replace("calm = 1.0", "calm = 7", 1), "utf-8")
    line = await refusal(COMMANDS[command], ION_PERSONAS_DIR=str(tmp_path), ION_HTTP_BIND="127.0.0.1:0")
    assert "riri.toml: affinity.tone.calm = 7" in line
    assert "less than or equal to 1" in line
