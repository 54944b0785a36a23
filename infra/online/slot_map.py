"""Which node of a cluster serves which slot, as the cluster itself says it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis.exceptions import RedisClusterException

from skewless.infra.online.markers import TAG_SLOTS, marker_key_of

_SLOTS = 16_384


class Node(NamedTuple):
    """Where a node listens."""

    host: str
    port: int


class SlotMap:
    """A map of slots that is ``stale`` at first, and whenever a node was not what the map says.

    Args:
        seeds: nodes to ask where no others are known.
    """

    def __init__(self, seeds: Iterable[Node]) -> None:
        self.stale = True
        self._seeds = tuple(seeds)
        self._owners: list[Node | None] = [None] * _SLOTS
        self._parts: tuple[int, ...] = ()

    def owner(self, slot: int) -> Node:
        """Return the master that serves a slot.

        Raises:
            RedisClusterException: none does.
        """
        node = self._owners[slot]
        if node is None:
            raise RedisClusterException(f"slot {slot} is served by no node of the cluster")  # type: ignore[no-untyped-call]
        return node

    def nodes(self) -> list[Node]:
        """Return the masters and the seeds, each once."""
        return list(dict.fromkeys([*filter(None, dict.fromkeys(self._owners)), *self._seeds]))

    def marker_keys(self, name: str) -> list[bytes]:
        """Return the keys of one marker on each master: it vouches for all rows of its server."""
        return [marker_key_of(name, part) for part in self._parts]

    def learn(self, ranges: Iterable[Sequence[Any]], asked: Node) -> bool:
        """Take over what CLUSTER SLOTS replied; return whether a slot has another master than before.

        Args:
            ranges: first slot, last slot, and the master's host and port, then its replicas.
            asked: who replied; a node that does not know its own host names none.
        """
        before, self._owners = self._owners, [None] * _SLOTS
        for first, last, (host, port, *_), *_ in ranges:
            node = Node((host or b"").decode() or asked.host, port)
            self._owners[first : last + 1] = [node] * (last + 1 - first)
        self._renew_parts()
        self.stale = False
        return self._owners != before

    def move(self, slot: int, node: Node) -> None:
        """Take over what a node said of one slot."""
        self._owners[slot] = node
        self._renew_parts()

    def _renew_parts(self) -> None:
        self._parts = tuple({self._owners[slot]: part for part, slot in enumerate(TAG_SLOTS)}.values())
