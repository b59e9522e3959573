"""The samples run, and print what the README shows of them."""

from __future__ import annotations

import asyncio
import os
import re
import sys

import pytest

from tests.stack.harness import ROOT

SYNC = r"""Riri: .+ give Riri 0\.\d\d, which is 0\.\d\d ahead of \w+\.
Lua \(\d\.\d\d\): .+
\w+: .+
\[Generation\(model='[^']+', .+\)\]
(\d+) \d\d:\d\d Lua: I rewrote the parser three times and it still breaks!
(\d+) \d\d:\d\d \w+: And what would you do next\?
MESSAGE_BLANK: message: must not be blank
"""
ASYNC = r"""\w+ for [a-z_]+-[a-z]+-[a-z_]+: .+
\w+ for [a-z_]+-[a-z]+-[a-z_]+: .+
\w+ for [a-z_]+-[a-z]+-[a-z_]+: .+
Elro begins: .+
"""


@pytest.mark.parametrize(("name", "printed"), [("client_sync", SYNC), ("client_async", ASYNC)])
@pytest.mark.parametrize("transport", ["grpc", "http"])
async def test_a_sample_prints_what_it_is_to_show(chain, vertex, name, printed, transport):
    url = f"grpc://{chain.router}" if transport == "grpc" else chain.url
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, ROOT / "samples" / f"{name}.py", url),
        env={"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos' / 'gen'}", "PYTHONIOENCODING": "utf-8"},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert re.fullmatch(printed, output.decode(), re.DOTALL)
