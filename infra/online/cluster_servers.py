"""Writes to and reads from a Redis Cluster: a command reaches one slot, so keys are grouped by slot and node."""

from __future__ import annotations

from binascii import crc_hqx
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from hashlib import blake2b
from itertools import groupby, pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from redis.exceptions import AskError, NoScriptError, RedisClusterException, RedisError, TryAgainError

from skewless.infra.online.clients import borrow_connection
from skewless.infra.online.port import Binaries
from skewless.infra.online.resp import BulkStrings, command, exchange, script_calls
from skewless.infra.online.servers import LastArgument, Script, ScriptReply, SingleServer, slices

SLOTS = 16_384
_BURST = 200  # commands of few keys each
# The slot moved or is migrating. redis-py's own client follows the redirection, one key at a time.
_MOVING = (AskError, TryAgainError)


class ClusterServers:
    """A Redis Cluster behind redis-py's client, whose slot map is refreshed after every failure; see SingleServer."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - redis-py's clients are untyped
        self.client = client
        self._stale = False

    def write(self, script: Script, keys: Binaries, rows: Binaries) -> int:
        """Call a script with keys and one argument per key, slot by slot; return the sum of the replies."""
        return sum(answer.reply for answer in self.call(script, keys, rows))

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
                done, rejected = _call_node(node, script, names, values, parts, extra)
                if rejected:
                    # The node may not have the script yet. Calls for moving slots are rejected again.
                    node.script_load(script.script)
                    extra = [last(int(slots[start])) for start, _ in rejected] if last else []
                    retried, rejected = _call_node(node, script, names, values, rejected, extra)
                    done += retried
                for part in rejected:
                    tail = [last(int(slots[part[0]]))] if last else []
                    done += self._call_each_key(script, keys, rows, part, tail)
                # The keys were sorted by slot: back to the caller's indices.
                script_replies += [replace(answer, places=order[answer.places].tolist()) for answer in done]
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
        script_replies = []
        for place in range(*part):
            key, row = keys[place].as_py(), rows[place].as_py()
            try:
                reply = self.client.evalsha(script.sha, 1, key, row, *tail)
            except NoScriptError:
                # EVAL reaches the key's node and loads the script there; SCRIPT LOAD may go to the wrong node.
                reply = self.client.eval(script.script, 1, key, row, *tail)
            script_replies.append(ScriptReply(places=[place], reply=reply))
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


def _call_node(
    node: Any,  # noqa: ANN401 - redis-py's clients are untyped
    script: Script,
    keys: BulkStrings,
    rows: BulkStrings,
    parts: Sequence[tuple[int, int]],
    last: Sequence[bytes],
) -> tuple[list[ScriptReply], list[tuple[int, int]]]:
    """Call a script once for each slice of keys; return the replies, and the slices that the node rejected."""
    calls = script_calls(script.sha.encode(), keys, rows, parts, last)
    with borrow_connection(node) as connection:
        replies, refused = exchange(connection, calls, 2 * _BURST, (*_MOVING, NoScriptError), _BURST)
    done = [part for i, part in enumerate(parts) if i not in set(refused)]
    script_replies = [ScriptReply(places=range(*part), reply=reply) for part, reply in zip(done, replies, strict=True)]
    return script_replies, [parts[i] for i in refused]


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
