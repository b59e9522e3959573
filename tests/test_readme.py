"""What the README says is so."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import textwrap
from pathlib import Path

import pytest

from gateway_http.settings import HttpSettings
from llm_gateway.settings import LlmSettings
from router_service.settings import RouterSettings
from standalone.settings import ClientSettings
from tests.stack.harness import Chain, standalone

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
# A program, and what it is said to print, if anything: an indented block.
PROGRAM = re.compile(r"```python\n(.+?)```\n(?:\n((?:    [^\n]*\n|\n)+))?", re.S)


@pytest.mark.parametrize("settings_type", [HttpSettings, RouterSettings, LlmSettings, ClientSettings])
def test_every_setting_is_listed_with_its_meaning(settings_type):
    for field in settings_type.model_fields.values():
        assert re.search(rf"^\| `{field.validation_alias}` \| .+ \| {re.escape(field.description)} \|$", README, re.M)


async def test_the_first_example_answers_as_shown():
    request = re.search(r"curl -X POST localhost:8080/chat -d '(.+)'", README)
    shown = re.search(r"```json\n(.+?)\n```", README, re.S)
    assert request
    assert shown
    async with standalone({}) as chain:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}  # as curl sends it
        response = await chain.http.post("/chat", content=request[1].encode(), headers=headers)
    assert response.json() == json.loads(shown[1])


def test_commands_that_newcomers_are_told_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^    make ([a-z-]+)", README, re.M):
        assert re.search(rf"^{target}:.*## ", makefile, re.M)


def programs(*beginnings: str) -> tuple[str, str]:
    """Those that begin so, as one, and all that they are said to print."""
    found = {code: shown for code, shown in PROGRAM.findall(README) if code.lstrip().startswith(beginnings)}
    assert len(found) == len(beginnings)
    return "".join(found), "\n".join(textwrap.dedent(shown).strip() for shown in found.values())


async def run(code: str, chain: Chain) -> str:
    """What it prints."""
    here = code.replace("http://127.0.0.1:8080", chain.url).replace("127.0.0.1:50051", chain.router)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", here),
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos/gen'}"},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    return out.decode().strip()


@pytest.mark.parametrize(
    "beginnings", [("from openai", "stream = client"), ("import ion_client",)], ids=["openai", "ion_client"]
)
async def test_programs_print_what_is_shown(beginnings):
    code, shown = programs(*beginnings)
    async with standalone({}) as chain:
        printed = await run(code, chain)
    if shown.endswith("…"):  # the last line is too long to be shown
        assert printed.startswith(shown[:-1])
    else:
        assert printed == shown


async def test_programs_over_grpc_run():
    code, _ = programs("import grpc", "for event in stub.ChatStream")
    async with standalone({}) as chain:
        printed = await run(code, chain)
    assert printed.startswith("Nana ")
    assert printed.count("Which index does this query use") == 2
