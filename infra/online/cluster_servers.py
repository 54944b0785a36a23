"""The nodes of a cluster: a call reaches one slot, so keys are grouped by slot and sent node by node."""

from __future__ import annotations

from binascii import crc_hqx
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from hashlib import blake2b
from itertools import groupby, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from redis.exceptions import AskError, NoScriptError, RedisClusterException, RedisError, TryAgainError

from skewless.infra.online.clients import lent
from skewless.infra.online.port import Binaries
from skewless.infra.online.resp import BulkStrings, command, exchange, script_calls
from skewless.infra.online.servers import Last, Script, ScriptReply, slices

_SLOTS = 16_384
_BURST = 200  # calls of few keys each
# A slot that moved or is moving: redis-py's own client follows it, a key at a time.
_MOVING = (AskError, TryAgainError)


class ClusterServers:
    """A cluster, through redis-py's client, whose map of slots is renewed after every failure."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401 - redis-py's clients are untyped
        self.client = client
        self._stale = False

    def write(self, script: Script, keys: Binaries, rows: Binaries) -> int:
        """Call a script of keys and as many arguments on all of them, slot by slot; return the sum of the replies."""
        return sum(answer.reply for answer in self.call(script, keys, rows))

    def call(self, script: Script, keys: Binaries, rows: Binaries, last: Last | None = None) -> list[ScriptReply]:
        """Call a script of keys and as many arguments on all of them, slot by slot; return each part's reply."""
        keys, rows = _array(keys), _array(rows)
        slots = np.fromiter(map(key_slot, keys.to_pylist()), dtype=np.int64, count=len(keys))
        order = np.argsort(slots, kind="stable")
        keys, rows, slots = keys.take(order), rows.take(order), slots[order]
        names, values = BulkStrings(keys), BulkStrings(rows)
        answers: list[ScriptReply] = []
        with self._renewed():
            for node, parts in self._by_node(slots):
                more = [last(int(slots[start])) for start, _ in parts] if last else []
                done, again = _called(node, script, names, values, parts, more)
                if again:
                    # Perhaps the node does not know the script; those of moving slots are refused again.
                    node.script_load(script.script)
                    more = [last(int(slots[start])) for start, _ in again] if last else []
                    others, again = _called(node, script, names, values, again, more)
                    done += others
                for part in again:
                    tail = [last(int(slots[part[0]]))] if last else []
                    done += self._one_by_one(script, keys, rows, part, tail)
                answers += [replace(answer, places=order[answer.places].tolist()) for answer in done]
        return answers

    def read(self, keys: Binaries, more: Sequence[bytes] = ()) -> list[bytes | None]:
        """Return the value of each key, and of some more, in order, from one round trip to each node; None: none."""
        names = [*(keys.to_pylist() if isinstance(keys, pa.Array) else keys), *more]
        slots = np.fromiter(map(key_slot, names), dtype=np.int64, count=len(names))
        found: list[bytes | None] = [None] * len(names)
        moving: list[int] = []
        with self._renewed(), ExitStack() as stack:
            asked = []
            for node, places in self._places(slots):
                connection = stack.enter_context(lent(node))
                connection.send_packed_command([b"".join(command(b"GET", names[i]) for i in places)])
                asked.append((connection, places))
            for connection, places in asked:
                for i in places:
                    try:
                        found[i] = connection.read_response()
                    except _MOVING:
                        moving.append(i)
            for i in moving:
                found[i] = self.client.get(names[i])
        return found

    def masters(self) -> Sequence[Any]:
        """Return a client of each master, in the order of their addresses."""
        with self._renewed():
            nodes = sorted(self.client.get_primaries(), key=lambda node: node.name)
            return [self.client.get_redis_connection(node) for node in nodes]

    def layout(self) -> str | None:
        """Return a digest of which slots lie together, whoever serves them, asked for now."""
        with self._renewed():
            ranges = self.client.cluster_slots()
        together: defaultdict[object, list[tuple[int, int]]] = defaultdict(list)
        for bounds, nodes in sorted(ranges.items()):
            together[nodes["primary"]].append(bounds)
        return blake2b(repr(sorted(together.values())).encode(), digest_size=8).hexdigest()

    def close(self) -> None:
        """Give the connections back."""
        self.client.close()

    def _by_node(self, slots: npt.NDArray[np.int64]) -> Iterator[tuple[Any, list[tuple[int, int]]]]:
        """Yield each node's client with the parts that it serves; a part lies in one slot."""
        bounds = [0, *(np.flatnonzero(np.diff(slots)) + 1).tolist(), len(slots)] if len(slots) else [0]
        by_node: dict[str, list[tuple[int, int]]] = {}
        clients: dict[str, Any] = {}
        for start, stop in pairwise(bounds):
            node = self.client.nodes_manager.get_node_from_slot(int(slots[start]))
            clients[node.name] = self.client.get_redis_connection(node)
            by_node.setdefault(node.name, []).extend(slices(stop, start=start))
        return ((clients[name], parts) for name, parts in by_node.items())

    def _places(self, slots: npt.NDArray[np.int64]) -> Iterator[tuple[Any, list[int]]]:
        """Yield each node's client with the places of the keys that it serves."""
        nodes = [self.client.nodes_manager.get_node_from_slot(int(slot)) for slot in slots]
        order = sorted(range(len(nodes)), key=lambda i: nodes[i].name)
        for _, group in groupby(order, key=lambda i: nodes[i].name):
            places = list(group)
            yield self.client.get_redis_connection(nodes[places[0]]), places

    def _one_by_one(
        self, script: Script, keys: pa.Array, rows: pa.Array, part: tuple[int, int], tail: list[bytes]
    ) -> list[ScriptReply]:
        answers = []
        for place in range(*part):
            key, row = keys[place].as_py(), rows[place].as_py()
            try:
                reply = self.client.evalsha(script.sha, 1, key, row, *tail)
            except NoScriptError:
                # EVAL goes where the key is and teaches that node; SCRIPT LOAD could meet an old map of slots.
                reply = self.client.eval(script.script, 1, key, row, *tail)
            answers.append(ScriptReply(places=[place], reply=reply))
        return answers

    @contextmanager
    def _renewed(self) -> Iterator[None]:
        try:
            if self._stale:
                self.client.nodes_manager.initialize()
                self._stale = False
            yield
        except (RedisError, RedisClusterException, OSError):
            self._stale = True
            raise


def _called(
    node: Any,  # noqa: ANN401 - redis-py's clients are untyped
    script: Script,
    keys: BulkStrings,
    rows: BulkStrings,
    parts: Sequence[tuple[int, int]],
    last: Sequence[bytes],
) -> tuple[list[ScriptReply], list[tuple[int, int]]]:
    """Call a script once for each part; return the replies, and the parts that the node refused."""
    calls = script_calls(script.sha.encode(), keys, rows, parts, last)
    with lent(node) as connection:
        replies, refused = exchange(connection, calls, 2 * _BURST, (*_MOVING, NoScriptError), _BURST)
    done = [part for i, part in enumerate(parts) if i not in set(refused)]
    answers = [ScriptReply(places=range(*part), reply=reply) for part, reply in zip(done, replies, strict=True)]
    return answers, [parts[i] for i in refused]


def key_slot(key: bytes) -> int:
    """Return the slot of a key, by its hash tag where it has one (Redis Cluster specification, "Hash tags").

    >>> key_slot(b"123456789"), key_slot(b"sk:{id|7}") == key_slot(b"id|7")
    (12739, True)
    """
    start = key.find(b"{")
    if start >= 0:
        stop = key.find(b"}", start + 1)
        if stop > start + 1:
            key = key[start + 1 : stop]
    return crc_hqx(key, 0) % _SLOTS


def _array(values: Binaries) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, pa.large_binary())
