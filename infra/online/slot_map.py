"""The slot map of a Redis Cluster: which node serves which slot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redis.exceptions import RedisClusterException

from skewless.infra.online.markers import TAG_SLOTS, marker_key_of

_SLOTS = 16_384


class Node(NamedTuple):
    """The address of a node."""

    host: str
    port: int


class SlotMap:
    """A slot map. It is ``is_stale`` at first, and after a node has replied with a redirection.

    Args:
        seeds: nodes to contact while no others are known.
    """

    def __init__(self, seeds: Iterable[Node]) -> None:
        self.is_stale = True
        self._seeds = tuple(seeds)
        self._owners: list[Node | None] = [None] * _SLOTS
        self._marker_parts: tuple[int, ...] = ()

    def owner(self, slot: int) -> Node:
        """Return the master that serves a slot.

        Raises:
            RedisClusterException: no master serves it.
        """
        node = self._owners[slot]
        if node is None:
            raise RedisClusterException(f"no node of the cluster serves slot {slot}")  # type: ignore[no-untyped-call]
        return node

    def nodes(self) -> list[Node]:
        """Return all masters and seeds, without duplicates."""
        return list(dict.fromkeys([*filter(None, dict.fromkeys(self._owners)), *self._seeds]))

    def marker_keys(self, name: str) -> list[bytes]:
        """Return the keys of a marker, one on each master: it covers all rows of its server."""
        return [marker_key_of(name, part) for part in self._marker_parts]

    def load(self, ranges: Iterable[Sequence[Any]], sender: Node) -> bool:
        """Load the reply of CLUSTER SLOTS; return whether a slot has a new master.

        Args:
            ranges: first slot, last slot, host and port of the master, then its replicas.
            sender: the node that replied; a node that does not know its own host sends none.
        """
        old_owners, self._owners = self._owners, [None] * _SLOTS
        for first, last, (host, port, *_), *_ in ranges:
            node = Node((host or b"").decode() or sender.host, port)
            self._owners[first : last + 1] = [node] * (last + 1 - first)
        self._update_parts()
        self.is_stale = False
        return self._owners != old_owners

    def set_owner(self, slot: int, node: Node) -> None:
        """Record the new master of one slot, from a redirection."""
        self._owners[slot] = node
        self._update_parts()

    def _update_parts(self) -> None:
        # The dict keeps one part for each master.
        self._marker_parts = tuple({self._owners[slot]: part for part, slot in enumerate(TAG_SLOTS)}.values())
