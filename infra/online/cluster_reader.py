"""Reading many keys of a cluster at once, over one shared connection to each node, also while slots move."""

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

_HOPS = 5
_MOVING = (AskError, TryAgainError)  # MOVED is an ASK too
_ASKING = command(b"ASKING")
_SLOTS = command(b"CLUSTER", b"SLOTS")


class ClusterReader:
    """Holds the map of slots, and one link to each node, made when it is needed.

    Args:
        address: of a cluster.
        timeout_s: how long a node may take for a reply.
        on_connect: awaited for each connection that was made, and when slots have got another master, before anything
            is read there.
    """

    def __init__(self, address: RedisAddress, timeout_s: float, on_connect: OnConnect | None = None) -> None:
        self._address = address
        self._timeout_s = timeout_s
        self._on_connect = on_connect
        self._slots = SlotMap(Node(*host) for host in address.hosts)
        self._changed = False  # whether slots have got a master that ``on_connect`` has not heard of
        self._links: dict[Node, StoreLink] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._following: set[asyncio.Task[None]] = set()

    def ask(self, keys: Sequence[bytes], names: Sequence[str], done: Callable[[Marked | StoreError], None]) -> None:
        """Have ``done`` called with the row of each key and the marker of each name, from one round trip to each node.

        Where slots move, the request follows them, at the price of more round trips.
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
                done(split(values, len(keys), marks))  # type: ignore[arg-type]  # none is an error

        try:
            self._send([*keys, *chain.from_iterable(marks)], finished)
        except RedisClusterException as error:
            done(self._noted(error))

    def linger(self) -> None:
        """Do nothing: one node's reply would be awaited at the cost of the others'."""

    async def hold(self, keys: Sequence[bytes], seconds: int) -> None:
        """Leave a sign under each key that stands for so long.

        Raises:
            RedisError, RedisClusterException: a node is away.
        """
        await self._renewed()
        for key in keys:
            await self._led(command(b"SET", key, b"1", b"EX", b"%d" % seconds), key_slot(key))

    async def close(self) -> None:
        """Give the connections back."""
        for link in self._links.values():
            await link.close()
        tasks = {*self._following, *filter(None, [self._renewing])}
        await asyncio.gather(*tasks, return_exceptions=True)

    def _send(self, keys: Sequence[bytes], finished: Callable[[list[Value], bool], None]) -> None:
        """Ask every node for its keys, those of one slot by one command."""
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
        """Ask for everything, with a new map as long as nodes say that slots have moved; then for what is moving."""
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
        """Return the reply to a command of one key, sent where the map says and then wherever nodes say."""
        node, asking, refusal = self._slots.owner(slot), False, None
        for _ in range(_HOPS):
            try:
                return await self._exchanged(node, message, asking=asking)
            except AskError as error:
                node, asking, refusal = Node(error.host, error.port), not isinstance(error, MovedError), error
        raise RedisClusterException(f"the nodes do not agree on slot {slot}") from refusal  # type: ignore[no-untyped-call]

    async def _exchanged(self, node: Node, message: bytes, *, asking: bool) -> Any:  # noqa: ANN401 - as above
        link = self._live(node)
        if not asking:
            return await link.call(message)
        # What ASKING allows is the next command of the same connection.
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        link.ask_all(_ASKING + message, [lambda _: None, partial(settle, future)])
        return await future

    async def _renewed(self) -> None:
        """Renew a map that is stale; those who want it at the same time share the work."""
        if not self._slots.stale:
            return
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.get_running_loop().create_task(self._renew())
        await asyncio.shield(self._renewing)

    async def _renew(self) -> None:
        """Take the map of the node that answers first."""
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
    """Puts each node's reply where the request wants it.

    Args:
        n: how many values there will be.
        parts: how many replies bring them.
        finished: called when all are there, with the values, an error in the place of each that did not come, and
            whether there is any.
    """

    __slots__ = ("_failed", "_finished", "_left", "_values")

    def __init__(self, n: int, parts: int, finished: Callable[[list[Value], bool], None]) -> None:
        self._values: list[Value] = [None] * n
        self._left = parts
        self._failed = False
        self._finished = finished

    def take(self, places: Sequence[int], reply: Any) -> None:  # noqa: ANN401 - replies have any type
        """Take the reply to one part: the values for its places, or the error that came for all of them."""
        values = self._values
        if isinstance(reply, Exception):
            self._failed = True
            reply = [reply] * len(places)
        for place, value in zip(places, reply, strict=True):
            values[place] = value
        self._left -= 1
        if not self._left:
            self._finished(values, self._failed)
