"""Reads many keys of a Redis Cluster at once over one shared connection to each node, also while slots move."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

from redis.exceptions import AskError, MovedError, RedisClusterException, RedisError, TryAgainError

from skewless.contract.errors import SkewlessError, StoreError
from skewless.infra.online.address import RedisAddress
from skewless.infra.online.clients import dial, open_async_node
from skewless.infra.online.cluster_servers import key_slot
from skewless.infra.online.failures import store_error
from skewless.infra.online.link import StoreLink
from skewless.infra.online.markers import split
from skewless.infra.online.port import Marked, OnConnect, settle
from skewless.infra.online.resp import command, mget
from skewless.infra.online.slot_map import Node, SlotMap

Value: TypeAlias = bytes | Exception | None

_HOPS = 5  # how many redirections a request follows
_MOVING = (AskError, TryAgainError)  # MovedError is a subclass of AskError
_ASKING = command(b"ASKING")
_SLOTS = command(b"CLUSTER", b"SLOTS")


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
        self._changed = False  # slots have a new master and ``on_connect`` has not run for it yet
        self._links: dict[Node, StoreLink] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._following: set[asyncio.Task[None]] = set()

    def ask(self, keys: Sequence[bytes], names: Sequence[str], done: Callable[[Marked | StoreError], None]) -> None:
        """Read rows and markers from one round trip to each node, then call ``done`` with them.

        While slots move, the request follows redirections, which takes more round trips.
        """
        if not len(keys) + len(names):
            done(([], []))
            return
        if self._slots.stale:
            self._follow(keys, names, done)
            return
        marks = [self._slots.marker_keys(name) for name in names]

        def finished(values: list[Value], failed: bool) -> None:  # noqa: FBT001 - called by position
            if failed:
                self._follow_or_fail(values, keys, names, done)
            else:
                done(split(values, len(keys), marks))  # type: ignore[arg-type]  # no value is an error here

        try:
            self._send([*keys, *chain.from_iterable(marks)], finished)
        except RedisClusterException as error:
            done(self._noted(error))

    def linger(self) -> None:
        """Do nothing: busy-polling one node would delay the replies of the others."""

    async def hold(self, keys: Sequence[bytes], seconds: int) -> None:
        """Set each key, to expire after ``seconds``.

        Raises:
            RedisError, RedisClusterException: a node is unavailable.
        """
        await self._renewed()
        for key in keys:
            await self._led(command(b"SET", key, b"1", b"EX", b"%d" % seconds), key_slot(key))

    async def close(self) -> None:
        """Close all connections."""
        for link in self._links.values():
            await link.close()
        tasks = {*self._following, *filter(None, [self._renewing])}
        await asyncio.gather(*tasks, return_exceptions=True)

    def _send(self, keys: Sequence[bytes], finished: Callable[[list[Value], bool], None]) -> None:
        """Send each node one MGET for each slot of its keys."""
        by_slot: defaultdict[int, list[int]] = defaultdict(list)
        for i, key in enumerate(keys):
            by_slot[key_slot(key)].append(i)
        by_node: defaultdict[Node, list[list[int]]] = defaultdict(list)
        for slot, places in by_slot.items():
            by_node[self._slots.owner(slot)].append(places)
        gathering = ReplyAssembler(len(keys), len(by_slot), finished)
        for node, parts in by_node.items():
            calls = [mget([keys[i] for i in places]) for places in parts]
            self._live(node).ask_all(b"".join(calls), [partial(gathering.take, places) for places in parts])

    def _follow_or_fail(
        self,
        values: Sequence[Value],
        keys: Sequence[bytes],
        names: Sequence[str],
        done: Callable[[Marked | StoreError], None],
    ) -> None:
        errors = [value for value in values if isinstance(value, Exception)]
        failure = next((error for error in errors if not isinstance(error, _MOVING)), None)
        if failure is not None:
            done(self._noted(failure))
            return
        self._slots.stale = True
        self._follow(keys, names, done)

    def _follow(self, keys: Sequence[bytes], names: Sequence[str], done: Callable[[Marked | StoreError], None]) -> None:
        async def follow() -> None:
            try:
                answer: Marked | StoreError = await self._followed(keys, names)
            except (RedisError, RedisClusterException, SkewlessError) as error:
                answer = self._noted(error)
            done(answer)

        task = asyncio.get_running_loop().create_task(follow())
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _followed(self, keys: Sequence[bytes], names: Sequence[str]) -> Marked:
        """Refresh the slot map until no node replies MOVED, then read keys of migrating slots one at a time."""
        moved: dict[int, Node] = {}
        for _ in range(_HOPS):
            await self._renewed()
            for slot, node in moved.items():
                self._slots.move(slot, node)
            marks = [self._slots.marker_keys(name) for name in names]
            wanted = [*keys, *chain.from_iterable(marks)]
            values = await self._sent(wanted)
            news = {value.slot_id: Node(value.host, value.port) for value in values if isinstance(value, MovedError)}
            if not news:
                break
            moved |= news
            self._slots.stale = True
        found = [await self._settled(key, value) for key, value in zip(wanted, values, strict=True)]
        return split(found, len(keys), marks)

    async def _sent(self, keys: Sequence[bytes]) -> list[Value]:
        future: asyncio.Future[list[Value]] = asyncio.get_running_loop().create_future()
        self._send(keys, lambda values, _: settle(future, values))
        return await future

    async def _settled(self, key: bytes, value: Value) -> bytes | None:
        if not isinstance(value, Exception):
            return value
        if not isinstance(value, _MOVING):
            raise value
        found: bytes | None = await self._led(command(b"GET", key), key_slot(key))
        return found

    async def _led(self, message: bytes, slot: int) -> Any:  # noqa: ANN401 - replies have any type
        """Return the reply to a command for one key; follow redirections from the owner in the slot map."""
        node, asking, refusal = self._slots.owner(slot), False, None
        for _ in range(_HOPS):
            try:
                return await self._exchanged(node, message, asking=asking)
            except AskError as error:
                node, asking, refusal = Node(error.host, error.port), not isinstance(error, MovedError), error
        raise RedisClusterException(f"nodes disagree about the owner of slot {slot}") from refusal  # type: ignore[no-untyped-call]

    async def _exchanged(self, node: Node, message: bytes, *, asking: bool) -> Any:  # noqa: ANN401 - as above
        link = self._live(node)
        if not asking:
            return await link.call(message)
        # ASKING applies to the next command of the same connection only, so both go out together.
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        link.ask_all(_ASKING + message, [lambda _: None, partial(settle, future)])
        return await future

    async def _renewed(self) -> None:
        """Refresh a stale slot map; concurrent callers share one refresh."""
        if not self._slots.stale:
            return
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._renew())
        await asyncio.shield(self._renewing)

    async def _renew(self) -> None:
        """Load the slot map from the first node that replies."""
        self._links = {node: link for node, link in self._links.items() if not link.broken}
        nodes = self._slots.nodes()
        replies: asyncio.Queue[tuple[Node, Any]] = asyncio.Queue()
        for node in nodes:
            self._live(node).ask(_SLOTS, partial(_tell, replies, node))
        for _ in nodes:
            node, reply = await replies.get()
            if not isinstance(reply, Exception):
                self._changed |= self._slots.learn(reply, node)
                if self._changed and self._on_connect is not None:
                    await self._on_connect()
                self._changed = False
                return
        raise reply

    def _live(self, node: Node) -> StoreLink:
        link = self._links.get(node)
        if link is None or link.broken:
            client = open_async_node(self._address, *node, self._timeout_s)
            link = self._links[node] = StoreLink(partial(dial, client, self._on_connect), self._timeout_s)
        return link

    def _noted(self, error: Exception) -> StoreError:
        self._slots.stale = True
        return store_error(self._address.url, error)


def _tell(replies: asyncio.Queue[tuple[Node, Any]], node: Node, reply: Any) -> None:  # noqa: ANN401 - as above
    replies.put_nowait((node, reply))


class ReplyAssembler:
    """Collects the replies of all nodes into one list of values, in the order of the request.

    Args:
        n: number of values.
        parts: number of replies.
        finished: called after the last reply, with the values and whether any of them is an error.
    """

    __slots__ = ("_failed", "_finished", "_left", "_values")

    def __init__(self, n: int, parts: int, finished: Callable[[list[Value], bool], None]) -> None:
        self._values: list[Value] = [None] * n
        self._left = parts
        self._failed = False
        self._finished = finished

    def take(self, places: Sequence[int], reply: Any) -> None:  # noqa: ANN401 - replies have any type
        """Add the reply to one command: the values for ``places``, or one error for all of them."""
        values = self._values
        if isinstance(reply, Exception):
            self._failed = True
            reply = [reply] * len(places)
        for place, value in zip(places, reply, strict=True):
            values[place] = value
        self._left -= 1
        if not self._left:
            self._finished(values, self._failed)
