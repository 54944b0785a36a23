"""A cluster of three real servers without replicas, each with a third of the slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from tests.servers.node import BUS, Node, running
from tests.worlds.waiting import until

SLOTS = 16_384
_OPTIONS = {"cluster-enabled": "yes", "cluster-config-file": "nodes.conf", "cluster-node-timeout": "2000"}


class Cluster:
    """The nodes of a cluster; node i holds the slots of ``bounds(i)``."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """The address of the cluster, all nodes named."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"redis+cluster://{hosts}/"

    def bounds(self, i: int) -> tuple[int, int]:
        """Return the first and the last slot of a node."""
        n = len(self.nodes)
        return SLOTS * i // n, SLOTS * (i + 1) // n - 1

    def join(self) -> None:
        """Deal out the slots, introduce the nodes to each other, and wait until all agree."""
        for i, node in enumerate(self.nodes):
            node.ask("CLUSTER", "ADDSLOTSRANGE", *self.bounds(i))
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            if i:
                first = self.nodes[0].port
                node.ask("CLUSTER", "MEET", "127.0.0.1", first, first + BUS)
        until(self.whole)

    def whole(self) -> bool:
        """Say whether every node sees every slot served."""
        return all(self._sees_all(node) for node in self.nodes)

    def slot(self, key: bytes) -> int:
        """Return the slot of a key, as a node says."""
        with self.nodes[0].client() as client:
            return int(cast("Any", client).execute_command("CLUSTER KEYSLOT", key))

    def owner(self, key: bytes) -> Node:
        """Return the node that has the slot of a key at first."""
        slot = self.slot(key)
        return next(node for i, node in enumerate(self.nodes) if slot <= self.bounds(i)[1])

    def move(self, slot: int, source: Node, target: Node) -> None:
        """Move a slot with all its keys."""
        for step in self.steps(slot, source, target):
            step()

    def steps(self, slot: int, source: Node, target: Node) -> list[Callable[[], object]]:
        """Return the steps by which an administrator moves a slot; some of its keys go before the others."""
        ids = {node: node.ask("CLUSTER MYID").decode() for node in (source, target)}

        def migrate(n: int) -> None:
            keys = source.ask("CLUSTER GETKEYSINSLOT", slot, n)
            if keys:
                source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)

        return [
            lambda: target.ask("CLUSTER SETSLOT", slot, "IMPORTING", ids[source]),
            lambda: source.ask("CLUSTER SETSLOT", slot, "MIGRATING", ids[target]),
            lambda: migrate(20),
            lambda: migrate(1_000),
            lambda: target.ask("CLUSTER SETSLOT", slot, "NODE", ids[target]),
            lambda: source.ask("CLUSTER SETSLOT", slot, "NODE", ids[target]),
        ]

    def flush(self) -> None:
        """Empty every node."""
        for node in self.nodes:
            node.ask("FLUSHALL")

    def _sees_all(self, node: Node) -> bool:
        state = node.ask("CLUSTER INFO")
        return state["cluster_state"] == "ok" and int(state["cluster_slots_ok"]) == SLOTS


@contextmanager
def cluster(program: Path, folder: Path, n: int = 3, options: Mapping[str, str] | None = None) -> Iterator[Cluster]:
    """Run a cluster for the length of a block."""
    with ExitStack() as stack:
        settings = {**_OPTIONS, **(options or {})}
        nodes = [stack.enter_context(running(Node(program, folder / f"n{i}", settings))) for i in range(n)]
        made = Cluster(nodes)
        made.join()
        yield made
