"""How keys are spread over servers, and bulk commands that bypass redis-py's command methods.

In a Redis Cluster a command reaches one slot, so keys are grouped by slot and node.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from itertools import groupby, pairwise
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from redis.exceptions import AskError, NoScriptError, RedisClusterException, RedisError, TryAgainError

from skewless.infra.reads.online.clients import (
    RedisAddress,
    borrow_connection,
    close_client,
    open_client,
    translate_errors,
)
from skewless.infra.reads.online.pooled_reader import PooledReader
from skewless.infra.reads.online.port import Binaries
from skewless.infra.reads.online.resp import BulkStrings, command, exchange, mget, script_calls

KEYS_PER_CALL = 100  # other clients wait for one call at most
WINDOW = 16  # calls without a reply, so that server and client work at the same time


# Returns the last argument of a call from its slot (None outside a cluster).
LastArgument = Callable[[int | None], bytes]
SLOTS = 16_384
_BURST = 200  # commands of few keys each
_WRITE_S = 30.0  # a server may run a large script or load its file
# The slot moved or is migrating. redis-py's own client follows the redirection, one key at a time.
_MOVING = (AskError, TryAgainError)


class Script(Protocol):
    """A registered script of redis-py: its text and its digest."""

    script: str
    sha: str


# The reply of a script for one slice of the keys, and the indices of these keys.
ScriptReply: TypeAlias = tuple[Sequence[int], Any]


class SingleServer:
    """One server, or the master that Sentinel manages; ``client`` runs single commands.

    Methods raise redis-py's exceptions.
    """

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - redis-py's clients are untyped
        self.client = client
        self._reader = PooledReader(client)

    def call(
        self, script: Script, keys: Binaries, rows: Binaries, last: LastArgument | None = None
    ) -> list[ScriptReply]:
        """Call a script with keys and one argument per key, in slices; return the reply for each slice.

        Args:
            script: the script.
            keys: shape ``(n,)``.
            rows: one argument for each key.
            last: makes one additional argument for each call.
        """
        parts, names, values = list(slices(len(keys))), BulkStrings(keys), BulkStrings(rows)
        script_replies: list[ScriptReply] = []
        while parts:
            extra = [last(None)] * len(parts) if last else ()
            done, parts = _call_slices(self.client, script, names, values, parts, extra)
            script_replies += done
            # Only rejected slices are sent again: the server was restarted or emptied since the script was loaded.
            if parts:
                self.client.script_load(script.script)
        return script_replies

    def read(self, keys: Binaries, extra: Sequence[bytes] = ()) -> list[bytes | None]:
        """Return the value of each key, then of ``extra``, in order, from one round trip; None: no value."""
        if not len(keys) + len(extra):
            return []
        message = mget(keys, extra)
        values = self._reader.read(message)
        if values is None:
            with borrow_connection(self.client) as connection:
                connection.send_packed_command([message])
                values = connection.read_response()
        return values

    def masters(self) -> Sequence[Any]:
        """Return a client of each master, in a stable order."""
        return (self.client,)

    def layout(self) -> str | None:
        """Return a digest of how slots are spread over masters: None, because only a cluster has slots."""
        return None

    def close(self) -> None:
        """Close all connections."""
        self._reader.close()
        close_client(self.client)


def slices(n: int, size: int = KEYS_PER_CALL, start: int = 0) -> Iterable[tuple[int, int]]:
    """Yield the bounds of slices of at most ``size``, end exclusive.

    >>> list(slices(5, 2))
    [(0, 2), (2, 4), (4, 5)]
    """
    return ((first, min(first + size, n)) for first in range(start, n, size))


class ClusterServers:
    """A Redis Cluster behind redis-py's client, whose slot map is refreshed after every failure; see SingleServer."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - redis-py's clients are untyped
        self.client = client
        self._stale = False

    def call(
        self, script: Script, keys: Binaries, rows: Binaries, last: LastArgument | None = None
    ) -> list[ScriptReply]:
        """Call a script with keys and one argument per key, slot by slot; return the reply for each slice of keys."""
        keys, rows = _array(keys), _array(rows)
        slots = np.fromiter(map(key_slot, keys.to_pylist()), dtype=np.int64, count=len(keys))
        # A stable order keeps repeated keys in the caller's order.
        order = np.argsort(slots, kind="stable")
        keys, rows, slots = keys.take(order), rows.take(order), slots[order]
        names, values = BulkStrings(keys), BulkStrings(rows)
        script_replies: list[ScriptReply] = []
        with self._fresh_slot_map():
            for node, parts in self._slice_by_node(slots):
                extra = [last(int(slots[start])) for start, _ in parts] if last else []
                done, rejected = _call_slices(node, script, names, values, parts, extra, in_cluster=True)
                if rejected:
                    # The node may not have the script yet. Calls for moving slots are rejected again.
                    node.script_load(script.script)
                    extra = [last(int(slots[start])) for start, _ in rejected] if last else []
                    retried, rejected = _call_slices(node, script, names, values, rejected, extra, in_cluster=True)
                    done += retried
                for part in rejected:
                    tail = [last(int(slots[part[0]]))] if last else []
                    done += self._call_each_key(script, keys, rows, part, tail)
                # The keys were sorted by slot: back to the caller's indices.
                script_replies += [(order[places].tolist(), reply) for places, reply in done]
        return script_replies

    def read(self, keys: Binaries, extra: Sequence[bytes] = ()) -> list[bytes | None]:
        """Return the value of each key, then of ``extra``, from one round trip to each node; None: no value."""
        names = [*(keys.to_pylist() if isinstance(keys, pa.Array) else keys), *extra]
        slots = np.fromiter(map(key_slot, names), dtype=np.int64, count=len(names))
        values: list[bytes | None] = [None] * len(names)
        moving: list[int] = []
        with self._fresh_slot_map(), ExitStack() as stack:
            # All requests are sent before the first reply is read, so that the nodes work at the same time.
            requests = []
            for node, places in self._group_by_node(slots):
                connection = stack.enter_context(borrow_connection(node))
                connection.send_packed_command([b"".join(command(b"GET", names[i]) for i in places)])
                requests.append((connection, places))
            for connection, places in requests:
                for i in places:
                    try:
                        values[i] = connection.read_response()
                    except _MOVING:
                        moving.append(i)
            for i in moving:
                values[i] = self.client.get(names[i])
        return values

    def masters(self) -> Sequence[Any]:
        """Return a client of each master, ordered by address."""
        with self._fresh_slot_map():
            nodes = sorted(self.client.get_primaries(), key=lambda node: node.name)
            return [self.client.get_redis_connection(node) for node in nodes]

    def layout(self) -> str | None:
        """Return a digest of which slots share a master, read now; a failover does not change it."""
        with self._fresh_slot_map():
            ranges = self.client.cluster_slots()
        slots_by_master: defaultdict[object, list[tuple[int, int]]] = defaultdict(list)
        for bounds, nodes in sorted(ranges.items()):
            slots_by_master[nodes["primary"]].append(bounds)
        return blake2b(repr(sorted(slots_by_master.values())).encode(), digest_size=8).hexdigest()

    def close(self) -> None:
        """Close all connections."""
        self.client.close()

    def _slice_by_node(self, slots: npt.NDArray[np.int64]) -> Iterator[tuple[Any, list[tuple[int, int]]]]:
        """Yield each node's client with the slices of keys that it serves; a slice lies in one slot."""
        # Bounds between runs of equal slots: a script call must stay inside one slot.
        bounds = [0, *(np.flatnonzero(np.diff(slots)) + 1).tolist(), len(slots)] if len(slots) else [0]
        by_node: dict[str, list[tuple[int, int]]] = {}
        clients: dict[str, Any] = {}
        for start, stop in pairwise(bounds):
            node = self.client.nodes_manager.get_node_from_slot(int(slots[start]))
            clients[node.name] = self.client.get_redis_connection(node)
            by_node.setdefault(node.name, []).extend(slices(stop, start=start))
        return ((clients[name], parts) for name, parts in by_node.items())

    def _group_by_node(self, slots: npt.NDArray[np.int64]) -> Iterator[tuple[Any, list[int]]]:
        """Yield each node's client with the indices of the keys that it serves."""
        nodes = [self.client.nodes_manager.get_node_from_slot(int(slot)) for slot in slots]
        order = sorted(range(len(nodes)), key=lambda i: nodes[i].name)
        for _, group in groupby(order, key=lambda i: nodes[i].name):
            places = list(group)
            yield self.client.get_redis_connection(nodes[places[0]]), places

    def _call_each_key(
        self, script: Script, keys: pa.Array, rows: pa.Array, part: tuple[int, int], tail: list[bytes]
    ) -> list[ScriptReply]:
        script_replies: list[ScriptReply] = []
        for place in range(*part):
            key, row = keys[place].as_py(), rows[place].as_py()
            try:
                reply = self.client.evalsha(script.sha, 1, key, row, *tail)
            except NoScriptError:
                # EVAL reaches the key's node and loads the script there; SCRIPT LOAD may go to the wrong node.
                reply = self.client.eval(script.script, 1, key, row, *tail)
            script_replies.append(([place], reply))
        return script_replies

    @contextmanager
    def _fresh_slot_map(self) -> Iterator[None]:
        try:
            if self._stale:
                self.client.nodes_manager.initialize()
                self._stale = False
            yield
        except (RedisError, RedisClusterException, OSError):
            self._stale = True
            raise


Servers: TypeAlias = SingleServer | ClusterServers


class RedisClient:
    """A blocking client of one Redis or Redis Cluster; methods raise StoreError.

    Args:
        url: as in the setting ``redis_url``.
        on_connect: called for each new connection, before it is used.
    """

    def __init__(self, url: str, on_connect: Callable[[], None] | None = None) -> None:
        self._url = url
        address = RedisAddress.parse(url)
        with translate_errors(url):
            client = open_client(address, _WRITE_S, on_connect)
        self._servers: Servers = ClusterServers(client) if address.kind == "cluster" else SingleServer(client)

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the value of each key, in order, from one round trip; None: no value."""
        with translate_errors(self._url):
            return self._servers.read(keys)

    def close(self) -> None:
        """Close all connections."""
        self._servers.close()


def _call_slices(
    client: Any,  # noqa: ANN401 - redis-py's clients are untyped
    script: Script,
    keys: BulkStrings,
    rows: BulkStrings,
    parts: Sequence[tuple[int, int]],
    last: Sequence[bytes],
    *,
    in_cluster: bool = False,
) -> tuple[list[ScriptReply], list[tuple[int, int]]]:
    """Call a script once for each slice of keys; return the replies, and the slices that the server rejected."""
    calls = script_calls(script.sha.encode(), keys, rows, parts, last)
    # Outside a cluster a redirection is an error: the URL is that of one of its nodes.
    retry_on = (NoScriptError, *(_MOVING if in_cluster else ()))
    window, burst = (2 * _BURST, _BURST) if in_cluster else (WINDOW, 1)
    with borrow_connection(client) as connection:
        replies, refused = exchange(connection, calls, window, retry_on, burst)
    places = [range(*part) for i, part in enumerate(parts) if i not in set(refused)]
    return list(zip(places, replies, strict=True)), [parts[i] for i in refused]


def key_slot(key: bytes) -> int:
    """Return the cluster slot of a key, from its hash tag if it has one (Redis Cluster specification, "Hash tags").

    >>> key_slot(b"123456789"), key_slot(b"sk:{id|7}") == key_slot(b"id|7")
    (12739, True)
    """
    start = key.find(b"{")
    if start >= 0:
        stop = key.find(b"}", start + 1)
        # An empty tag does not count: then the complete key is hashed, as the specification says.
        if stop > start + 1:
            key = key[start + 1 : stop]
    return crc_hqx(key, 0) % SLOTS


def _array(values: Binaries) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, pa.large_binary())
