"""A master with two replicas, and three sentinels that watch it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from tests.servers.node import Node, running
from tests.worlds.waiting import until

NAME = "features"
_QUICK = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}


_AT_ONCE_MS, _PATIENT_MS = 500, 60_000


class SentinelSet:
    """Three data servers and three sentinels; the first data server starts as master.

    The sentinels replace a master only when a test asks for it: on a busy machine a living one is silent for a second.
    """

    def __init__(self, data: list[Node], sentinels: list[Node]) -> None:
        self.data = data
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        """The address of the set."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.sentinels)
        return f"redis+sentinel://{hosts}/{NAME}/0"

    def master(self) -> Node:
        """Return the data server that the first living sentinel calls master."""
        _, port = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return next(node for node in self.data if node.port == int(port))

    def replicas(self) -> list[Node]:
        """Return the data servers that are not the master."""
        return [node for node in self.data if node is not self.master()]

    def fail_over(self) -> Node:
        """Kill the master and wait until the sentinels have another; return it."""
        old = self.master()
        old.kill()
        return self.successor(old)

    def successor(self, old: Node) -> Node:
        """Wait until every sentinel names one master that is not the old one and takes writes; return it."""

        def is_replaced() -> bool:
            return old not in self._masters() and len(self._masters()) == 1 and self._takes_writes()

        self._set_silence(_AT_ONCE_MS)
        until(is_replaced)
        self._set_silence(_PATIENT_MS)
        until(is_replaced)  # should they have replaced the new one, too
        return self.master()

    def replicate(self) -> None:
        """Wait until all living replicas have what the master has: also those that follow another since a failover."""
        living = sum(node.is_running for node in self.data) - 1
        with self.master().client() as client:
            client.incr("replicated")  # WAIT answers for the writes of its own connection
            until(lambda: cast("Any", client).execute_command("WAIT", living, 5_000) == living)
            client.delete("replicated")

    def _set_silence(self, limit_ms: int) -> None:
        """Set after which silence the sentinels replace a master."""
        for sentinel in self.sentinels:
            sentinel.ask("SENTINEL", "SET", NAME, "down-after-milliseconds", limit_ms)

    def _masters(self) -> set[Node | None]:
        """Return what the sentinels call master and up; None for one that is in doubt."""
        found = [sentinel.info("sentinel").get("master0", {}) for sentinel in self.sentinels]
        by_port = {str(node.port): node for node in self.data}
        return {
            by_port.get(each.get("address", "").rpartition(":")[2]) if each.get("status") == "ok" else None
            for each in found
        }

    def _takes_writes(self) -> bool:
        return None not in self._masters() and bool(self.master().info("replication")["role"] == "master")

    def settled(self) -> bool:
        """Say whether every sentinel knows the others and both replicas, and these are in step."""
        return self._replicas_are_linked() and all(self._knows_all(sentinel) for sentinel in self.sentinels)

    def _replicas_are_linked(self) -> bool:
        return all(node.info("replication").get("master_link_status") == "up" for node in self.data[1:])

    def _knows_all(self, sentinel: Node) -> bool:
        found = sentinel.info("sentinel").get("master0", {})
        return [found.get(name) for name in ("status", "slaves", "sentinels")] == ["ok", 2, 3]


@contextmanager
def sentinel_set(program: Path, folder: Path, options: Mapping[str, str] | None = None) -> Iterator[SentinelSet]:
    """Run a set for the length of a block."""
    with ExitStack() as stack:
        settings = {**_QUICK, **(options or {})}
        master = stack.enter_context(running(Node(program, folder / "d0", settings)))
        follow = {**settings, "replicaof": f"127.0.0.1 {master.port}"}
        data = [master] + [stack.enter_context(running(Node(program, folder / f"d{i}", follow))) for i in (1, 2)]
        watch = _sentinel_options(master)
        sentinels = [
            stack.enter_context(running(Node(program, folder / f"s{i}", watch, mode=("--sentinel",)))) for i in range(3)
        ]
        made = SentinelSet(data, sentinels)
        until(made.settled)
        yield made


def _sentinel_options(master: Node) -> dict[str, str]:
    return {
        "sentinel monitor": f"{NAME} 127.0.0.1 {master.port} 2",
        "sentinel down-after-milliseconds": f"{NAME} {_PATIENT_MS}",
        "sentinel failover-timeout": f"{NAME} 5000",
        "sentinel resolve-hostnames": "no",
    }
