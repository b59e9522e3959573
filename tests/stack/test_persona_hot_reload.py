"""Personas follow their files while the service runs: a new file answers, a bad one changes nothing and is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from router_service.personas import DEFAULT_DIRECTORY
from tests.stack.harness import SHAPES, Chain

MINA = (DEFAULT_DIRECTORY / "lua.toml").read_text("utf-8").replace('name = "Lua"', 'name = "Mina"', 1)


@pytest.fixture
def folder(tmp_path) -> Path:
    return shutil.copytree(DEFAULT_DIRECTORY, tmp_path / "files")


async def names(chain: Chain) -> list[str]:
    return [persona["name"] for persona in (await chain.http.get("/personas")).json()["personas"]]


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_fifth_file_answers_and_a_bad_one_keeps_the_five(shape, folder):
    async with SHAPES[shape]({"ION_PERSONAS_DIR": str(folder)}) as chain:
        await chain.wait_until_health(lambda health: health["personas"] == {"count": 4, "problem": ""})
        assert (await chain.chat("hello", persona="Mina")).status_code == 404

        (folder / "mina.toml").write_text(MINA, "utf-8")
        await chain.wait_until_health(lambda health: health["personas"] == {"count": 5, "problem": ""}, seconds=15)
        assert await names(chain) == ["Elro", "Lua", "Mina", "Nana", "Riri"]
        assert (await chain.chat("hello", persona="Mina")).json()["persona_used"] == "Mina"

        (folder / "mina.toml").write_text(MINA.replace("calm = 0.6", "calm = 7"), "utf-8")
        await chain.wait_until_health(lambda health: health["personas"]["problem"] != "", seconds=15)
        health = (await chain.http.get("/health")).json()
        problem = "mina.toml: affinity.tone.calm = 7: must be less than or equal to 1"
        assert (health["status"], health["personas"]) == ("degraded", {"count": 5, "problem": problem})
        assert (await chain.http.get("/readyz")).status_code == 200
        assert (await chain.chat("hello", persona="Mina")).json()["persona_used"] == "Mina"

        (folder / "mina.toml").unlink()
        await chain.wait_until_health(lambda health: health["status"] == "healthy", seconds=15)
        assert "Mina" not in await names(chain)
        errors = [record for process in chain.processes.values() for record in process.logged("not in use")]
        assert len(errors) == 1
