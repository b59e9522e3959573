"""What the tab key tells: as bash, zsh and fish ask for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.standalone.command import environment, ion

ION = Path(sys.executable).with_name("ion")


def bash(line: str, **env: str) -> list[str]:
    words = line.split(" ")
    asked = {"_ION_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return ion(**asked, **env).stdout.split()


def zsh(line: str, **env: str) -> list[str]:
    done = ion(_ION_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=line, **env).stdout
    return done.strip().removeprefix("_arguments '*: :((").removesuffix("))'").replace('"', "").splitlines()


def fish(line: str, **env: str) -> list[str]:
    asked = {"_ION_COMPLETE": "complete_fish", "_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    return [found.partition("\t")[0] for found in ion(**asked, **env).stdout.splitlines()]


SHELLS = pytest.mark.parametrize("shell", [bash, zsh, fish])


@pytest.fixture
def kept(tmp_path) -> dict[str, str]:
    """Settings with two sessions, one that no shell should see, and one of ann's."""
    state = {"ION_STATE_DIR": str(tmp_path)}
    for name in ("web-1", "standup", "web-2", "$(touch oops)"):
        ion("chat", "--session", name, "hello", **state)
    ion("chat", "--session", "hers", "--user", "ann", "hello", **state)
    return state


@SHELLS
def test_names_of_personas(shell):
    assert shell("ion chat --persona L") == ["Lua"]
    assert shell("ion personas export ") == ["Elro", "Lua", "Nana", "Riri"]


def test_ids_of_sessions(kept):
    for shell in (bash, zsh, fish):
        assert shell("ion chat --session web", **kept) == ["web-2", "web-1"]
        assert shell("ion sessions show ", **kept) == ["web-2", "standup", "web-1"]
    assert bash("ion sessions export --user ann ", **kept) == ["hers"]


def test_no_ids_of_sessions_that_are_elsewhere(kept):
    assert bash("ion sessions show --server 127.0.0.1:1 ", **kept) == []
    assert bash("ion sessions show ", **kept, DATABASE_URL="postgresql://127.0.0.1:1/ion") == []


@pytest.mark.parametrize("env", [{"ION_STATE_DIR": "/nowhere"}, {"DATABASE_URL": "nonsense"}])
def test_what_cannot_be_read_is_no_error(env):
    done = ion(_ION_COMPLETE="complete_bash", COMP_WORDS="ion sessions show ", COMP_CWORD="3", **env)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_personas_that_cannot_be_read_are_no_error(tmp_path):
    (tmp_path / "lua.toml").write_text("name = 7")
    done = ion(
        _ION_COMPLETE="complete_bash",
        COMP_WORDS="ion chat --persona ",
        COMP_CWORD="3",
        ION_PERSONAS_DIR=str(tmp_path),
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_it_is_installed_and_works_in_a_real_bash(tmp_path):
    env = environment() | {"HOME": str(tmp_path), "PATH": f"{ION.parent}{os.pathsep}{os.environ['PATH']}"}
    script = """
        ion --install-completion > /dev/null
        source ~/.bashrc
        COMP_WORDS=(ion chat --persona L) COMP_CWORD=3
        $(complete -p ion | sed 's/.*-F \\([^ ]*\\) .*/\\1/') ion
        echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("Lua\n", "")
