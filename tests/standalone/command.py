"""The `ion` command as people run it: in a process of its own, with their environment, and pipes."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired

from tests.stack.harness import FOREIGN, ROOT

STATE = tempfile.TemporaryDirectory(prefix="ion-state-")  # as long as the tests, in place of the user's own
SECONDS = 60.0
FRUSTRATED = "This is so frustrating! It broke again!"

# Processes are forked from one that has imported what takes long, and nothing that reads the environment: half a
# second less for each.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("pytest", "standalone.cli", "standalone.client", "gateway_http.translation", "rich.console", "rich.table"),
        *("chassis.sql_engine", "chassis.migrations", "alembic.config", "chassis.access.tables"),
        *("router_service.conversations.store", "router_service.conversations.statements"),
        *("anyio._backends._asyncio", "httpx", "httpx_sse"),
    ]
)


def environment() -> dict[str, str]:
    """What a command sees that the machine has, and a state folder of the tests."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    return inherited | {"ION_STATE_DIR": STATE.name}


def begin(arguments: tuple[str, ...], env: dict[str, str], streams: list[str]) -> BaseProcess:
    """Start it with these files for standard input, output and error; at a terminal all three are that."""
    process = _FORKS.Process(target=_main, args=(arguments, environment() | env, streams))
    process.start()
    return process


def ion(*arguments: str, stdin: str = "", **env: str) -> CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
        files[0].write_bytes(stdin.encode("utf-8", "surrogateescape"))
        process = begin(arguments, {"COLUMNS": "200"} | env, [str(file) for file in files])
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            raise TimeoutExpired(arguments, SECONDS)
        out, err = (file.read_text("utf-8") for file in files[1:])
        return CompletedProcess(arguments, process.exitcode, out, err)


def _main(arguments: tuple[str, ...], env: dict[str, str], streams: list[str]) -> None:
    os.setsid()  # so that the first terminal that is opened is its own, and Ctrl-C reaches it
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode, encoding="utf-8") for number, mode in enumerate("rww"))
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    time.tzset()
    sys.argv = ["ion", *arguments]
    from standalone.cli import main

    main()


def jsons(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]
