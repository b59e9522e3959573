"""What the README says is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from gateway_http.settings import HttpSettings
from llm_gateway.settings import LlmSettings
from router_service.settings import RouterSettings
from standalone.settings import ClientSettings
from tests.stack.harness import standalone

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


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
    makefile = (Path(__file__).parents[1] / "Makefile").read_text("utf-8")
    for target in re.findall(r"^    make ([a-z-]+)", README, re.M):
        assert re.search(rf"^{target}:.*## ", makefile, re.M)
