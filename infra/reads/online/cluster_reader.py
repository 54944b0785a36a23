"""Reads many keys of a Redis Cluster at once over one shared connection to each node, also while slots move."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from redis.exceptions import AskError, MovedError, RedisClusterException, RedisError, TryAgainError

from skewless.contract.errors import SkewlessError, StoreError
from skewless.infra.reads.online.clients import RedisAddress, dial, open_async_node, to_store_error
from skewless.infra.reads.online.link import StoreLink
from skewless.infra.reads.online.markers import TAG_SLOTS, MarkerSplitter, marker_key_of
from skewless.infra.reads.online.port import OnConnect, ReadCallback, RowsAndMarkers, settle
from skewless.infra.reads.online.resp import command, mget
from skewless.infra.reads.online.servers import SLOTS, key_slot

Value: TypeAlias = bytes | Exception | None
_HOPS = 5  # how many redirections a request follows
_MOVING = (AskError, TryAgainError)  # MovedError is a subclass of AskError
_ASKING = command(b"ASKING")
_READ_SLOTS = command(b"CLUSTER", b"SLOTS")


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
        self._owners: list[Node | None] = [None] * SLOTS
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
        old_owners, self._owners = self._owners, [None] * SLOTS
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


class ClusterReader:
    """Keeps the slot map and one shared connection to each node, opened on first use.

    Args:
        address: of a cluster.
        timeout_s: the timeout of a reply, in seconds.
        on_connect: awaited for each new connection, and after slots have moved to another master, before anything is
            read there.
    """

    def __init__(self, address: RedisAddress, timeout_s: float, on_connect: OnConnect | None = None) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._on_connect = on_connect
        self._slots = SlotMap(Node(*host) for host in address.hosts)
        self._has_new_master = False  # slots have a new master and ``on_connect`` has not run for it yet
        self._links: dict[Node, StoreLink] = {}
        self._refresh_task: asyncio.Task[None] | None = None
        self._read_tasks: set[asyncio.Task[None]] = set()
        self._splitter = MarkerSplitter()

    def start_read(self, keys: Sequence[bytes], names: Sequence[str], done: ReadCallback) -> None:
        """Read rows and markers from one round trip to each node, then call ``done`` with them.

        While slots move, the request follows redirections, which takes more round trips.
        """
        if not len(keys) + len(names):
            done(([], []))
            return
        # The map may never have been loaded: the slower path loads it first.
        if self._slots.is_stale:
            self._start_redirected_read(keys, names, done)
            return
        marker_keys = [self._slots.marker_keys(name) for name in names]

        def complete(values: list[Value], failed: bool) -> None:  # noqa: FBT001 - called by position
            if failed:
                self._retry_or_fail(values, keys, names, done)
            else:
                done(self._splitter.split(values, len(keys), marker_keys))  # type: ignore[arg-type]  # no value is an error here

        try:
            self._send([*keys, *chain.from_iterable(marker_keys)], complete)
        except RedisClusterException as error:
            done(self._note_failure(error))

    def busy_poll(self) -> None:
        """Do nothing: busy-polling one node would delay the replies of the others."""

    async def mark_in_use(self, keys: Sequence[bytes], seconds: int) -> None:
        """Set each key, to expire after ``seconds``.

        Raises:
            RedisError, RedisClusterException: a node is unavailable.
        """
        await self._ensure_fresh_map()
        for key in keys:
            await self._call_owner(command(b"SET", key, b"1", b"EX", b"%d" % seconds), key_slot(key))

    async def close(self) -> None:
        """Close all connections."""
        for link in self._links.values():
            await link.close()
        tasks = {*self._read_tasks, *filter(None, [self._refresh_task])}
        await asyncio.gather(*tasks, return_exceptions=True)

    def _send(self, keys: Sequence[bytes], on_complete: Callable[[list[Value], bool], None]) -> None:
        """Send each node one MGET for each slot of its keys."""
        by_slot: defaultdict[int, list[int]] = defaultdict(list)
        for i, key in enumerate(keys):
            by_slot[key_slot(key)].append(i)
        by_node: defaultdict[Node, list[list[int]]] = defaultdict(list)
        for slot, indices in by_slot.items():
            by_node[self._slots.owner(slot)].append(indices)
        assembler = ReplyAssembler(len(keys), len(by_slot), on_complete)
        for node, parts in by_node.items():
            calls = [mget([keys[i] for i in indices]) for indices in parts]
            self._open_link(node).send_all(
                b"".join(calls), [partial(assembler.add_reply, indices) for indices in parts]
            )

    def _retry_or_fail(
        self,
        values: Sequence[Value],
        keys: Sequence[bytes],
        names: Sequence[str],
        done: ReadCallback,
    ) -> None:
        errors = [value for value in values if isinstance(value, Exception)]
        failure = next((error for error in errors if not isinstance(error, _MOVING)), None)
        if failure is not None:
            done(self._note_failure(failure))
            return
        # The map is out of date, so the complete request is repeated with a fresh one.
        self._slots.is_stale = True
        self._start_redirected_read(keys, names, done)

    def _start_redirected_read(self, keys: Sequence[bytes], names: Sequence[str], done: ReadCallback) -> None:
        async def run() -> None:
            try:
                outcome: RowsAndMarkers | StoreError = await self._read_with_redirects(keys, names)
            except (RedisError, RedisClusterException, SkewlessError) as error:
                outcome = self._note_failure(error)
            done(outcome)

        task = asyncio.get_running_loop().create_task(run())
        self._read_tasks.add(task)
        task.add_done_callback(self._read_tasks.discard)

    async def _read_with_redirects(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Refresh the slot map until no node replies MOVED, then read keys of migrating slots one at a time."""
        new_owners: dict[int, Node] = {}
        for _ in range(_HOPS):
            await self._ensure_fresh_map()
            # A MOVED reply is newer than the map that another node has returned.
            for slot, node in new_owners.items():
                self._slots.set_owner(slot, node)
            # In the loop: which markers are read depends on which node has which slot.
            marker_keys = [self._slots.marker_keys(name) for name in names]
            all_keys = [*keys, *chain.from_iterable(marker_keys)]
            values = await self._send_and_wait(all_keys)
            redirects = {
                value.slot_id: Node(value.host, value.port) for value in values if isinstance(value, MovedError)
            }
            if not redirects:
                break
            new_owners |= redirects
            self._slots.is_stale = True
        # Keys of a slot that migrates right now are still errors: they are read one at a time.
        final_values = [await self._resolve_value(key, value) for key, value in zip(all_keys, values, strict=True)]
        return self._splitter.split(final_values, len(keys), marker_keys)

    async def _send_and_wait(self, keys: Sequence[bytes]) -> list[Value]:
        future: asyncio.Future[list[Value]] = asyncio.get_running_loop().create_future()
        self._send(keys, lambda values, _: settle(future, values))
        return await future

    async def _resolve_value(self, key: bytes, value: Value) -> bytes | None:
        if not isinstance(value, Exception):
            return value
        if not isinstance(value, _MOVING):
            raise value
        final_values: bytes | None = await self._call_owner(command(b"GET", key), key_slot(key))
        return final_values

    async def _call_owner(self, message: bytes, slot: int) -> Any:  # noqa: ANN401 - replies have any type
        """Return the reply to a command for one key; follow redirections from the owner in the slot map."""
        node, asking, refusal = self._slots.owner(slot), False, None
        for _ in range(_HOPS):
            try:
                return await self._call_node(node, message, asking=asking)
            except AskError as error:
                # The node of a MOVED reply owns the slot; the node of an ASK reply only imports it, and serves it after
                # ASKING.
                node, asking, refusal = Node(error.host, error.port), not isinstance(error, MovedError), error
        raise RedisClusterException(f"nodes disagree about the owner of slot {slot}") from refusal  # type: ignore[no-untyped-call]

    async def _call_node(self, node: Node, message: bytes, *, asking: bool) -> Any:  # noqa: ANN401 - as above
        link = self._open_link(node)
        if not asking:
            return await link.call(message)
        # ASKING applies to the next command of the same connection only, so both go out together.
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        link.send_all(_ASKING + message, [lambda _: None, partial(settle, future)])
        return await future

    async def _ensure_fresh_map(self) -> None:
        """Refresh a stale slot map; concurrent callers share one refresh."""
        if not self._slots.is_stale:
            return
        if self._refresh_task is None or self._refresh_task.done():
            self._refresh_task = asyncio.get_running_loop().create_task(self._refresh_map())
        # A cancelled caller must not cancel the refresh that others wait for.
        await asyncio.shield(self._refresh_task)

    async def _refresh_map(self) -> None:
        """Load the slot map from the first node that replies."""
        self._links = {node: link for node, link in self._links.items() if not link.is_broken}
        nodes = self._slots.nodes()
        replies: asyncio.Queue[tuple[Node, Any]] = asyncio.Queue()
        # All nodes are asked at once, and the first reply counts: a dead node costs no timeout.
        for node in nodes:
            self._open_link(node).send(_READ_SLOTS, partial(_queue_reply, replies, node))
        for _ in nodes:
            node, reply = await replies.get()
            if not isinstance(reply, Exception):
                # A new master may lack writes of the old one, so on_connect reads the log before any row is read there.
                self._has_new_master |= self._slots.load(reply, node)
                if self._has_new_master and self._on_connect is not None:
                    await self._on_connect()
                # Only after success: if `on_connect` fails, the next refresh must call it again.
                self._has_new_master = False
                return
        raise reply

    def _open_link(self, node: Node) -> StoreLink:
        link = self._links.get(node)
        if link is None or link.is_broken:
            client = open_async_node(self._address, *node, self._timeout_s)
            link = self._links[node] = StoreLink(partial(dial, client, self._on_connect), self._timeout_s)
        return link

    def _note_failure(self, error: Exception) -> StoreError:
        self._slots.is_stale = True
        return to_store_error(self._address.url, error)


def _queue_reply(replies: asyncio.Queue[tuple[Node, Any]], node: Node, reply: Any) -> None:  # noqa: ANN401 - as above
    replies.put_nowait((node, reply))


class ReplyAssembler:
    """Collects the replies of all nodes into one list of values, in the order of the request.

    Args:
        n: number of values.
        parts: number of replies.
        on_complete: called after the last reply, with the values and whether any of them is an error.
    """

    __slots__ = ("_failed", "_on_complete", "_remaining", "_values")

    def __init__(self, n: int, parts: int, on_complete: Callable[[list[Value], bool], None]) -> None:
        self._values: list[Value] = [None] * n
        self._remaining = parts
        self._failed = False
        self._on_complete = on_complete

    def add_reply(self, indices: Sequence[int], reply: Any) -> None:  # noqa: ANN401 - replies have any type
        """Add the reply to one command: the values for ``indices``, or one error for all of them."""
        values = self._values
        if isinstance(reply, Exception):
            self._failed = True
            # One error applies to all values of its command.
            reply = [reply] * len(indices)
        for index, value in zip(indices, reply, strict=True):
            values[index] = value
        self._remaining -= 1
        if not self._remaining:
            self._on_complete(values, self._failed)
