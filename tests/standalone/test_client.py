"""The router as the commands reach it."""

from __future__ import annotations

import asyncio

import pytest

from chassis.transport import Transport, TransportSettings
from tests.certificates import Authority
from tests.standalone.command import ion, jsons
from tests.standalone.scripted_router import ROUTED, Router, done, listening, text


@pytest.mark.parametrize(
    "command", [["chat", "hello", "--timeout", "5", "--server"], ["load", "--seconds", "0.1", "--stream", "--grpc"]]
)
async def test_a_router_behind_mutual_tls(tmp_path, command):
    ours = Authority(tmp_path)
    files = ours.issue("router")
    settings = TransportSettings(tls_certificate=files.certificate, tls_key=files.key, tls_ca=files.authority)
    router = Router(ROUTED, text("Yes."), done())
    env = {"FORCE_COLOR": "1", "TERM": "dumb"}
    async with listening(router, Transport.of(settings)) as target:
        trusted = await asyncio.to_thread(ion, *command, target, **env, **ours.issue("a person").env)
        stranger = await asyncio.to_thread(
            ion, *command, target, *("--timeout", "1", "--json"), **Authority(tmp_path / "other").issue("a person").env
        )
    assert trusted.returncode == 0
    assert router.requests
    assert stranger.returncode == 1
    assert command[0] == "load" or jsons(stranger.stderr)[0]["error"]["reason"]
