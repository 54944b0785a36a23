"""Commands in Redis's wire format, cut from Arrow columns: no Python object per key."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from redis.exceptions import NoScriptError

from skewless.contract.binaries import constant
from skewless.infra.online.integer_keys import IntegerKeys
from skewless.infra.online.port import Binaries

Message = Sequence[bytes | memoryview]


class RespConnection(Protocol):
    """What is used of redis-py's connections."""

    def send_packed_command(self, command: Message) -> None:
        """Send bytes as they are."""
        ...

    def read_response(self) -> Any:  # noqa: ANN401 - replies have any type
        """Return the next reply; raises it where it is an error."""
        ...


class BulkStrings:
    """Binary values as bulk strings, ready to be sent in slices.

    Args:
        values: shape ``(n,)``, without nulls.
    """

    def __init__(self, values: Binaries) -> None:
        import pyarrow.compute as pc  # noqa: PLC0415 - a command that changes nothing does without

        array = values if isinstance(values, pa.Array) else pa.array(values, pa.large_binary())
        lengths = pc.binary_length(array).cast(pa.large_string()).cast(pa.large_binary())
        joined = pc.binary_join_element_wise(
            constant(b"$"), lengths, constant(b"\r\n"), array, constant(b"\r\n"), constant(b"")
        )
        _, offsets, data = joined.buffers()
        self._offsets = (
            np.frombuffer(offsets, dtype=np.int64)[joined.offset :] if len(joined) else np.zeros(1, np.int64)
        )
        self._data = memoryview(data or b"")
        self._n = len(joined)

    def __len__(self) -> int:
        return self._n

    def cut(self, start: int, stop: int) -> memoryview:
        """Return the bulk strings of the values ``start`` to ``stop``, end exclusive."""
        return self._data[self._offsets[start] : self._offsets[stop]]


def command(*parts: bytes, more: int = 0) -> bytes:
    r"""Return a command, or its beginning if ``more`` arguments follow.

    >>> command(b"GET", b"k")
    b'*2\r\n$3\r\nGET\r\n$1\r\nk\r\n'
    """
    return b"*%d\r\n" % (len(parts) + more) + _bulks(parts)


def mget(keys: Binaries, more: Sequence[bytes] = ()) -> bytes:
    """Return the command that reads many keys, and some more."""
    head = b"*%d\r\n$4\r\nMGET\r\n" % (1 + len(keys) + len(more))
    if isinstance(keys, pa.Array):
        return b"".join((head, BulkStrings(keys).cut(0, len(keys)), _bulks(more)))
    if isinstance(keys, IntegerKeys):
        return b"".join((head, keys.bulks(), _bulks(more)))
    return head + _bulks([*keys, *more] if more else keys)


def _bulks(values: Sequence[bytes]) -> bytes:
    lines: list[bytes] = []
    for value in values:
        lines.append(_HEADS[len(value)])
        lines.append(value)
    lines.append(b"")
    return b"\r\n".join(lines)


class _LengthLines(dict[int, bytes]):
    """The line that stands before a value of some length."""

    def __missing__(self, length: int) -> bytes:
        head = self[length] = b"$%d" % length
        return head


_HEADS = _LengthLines()


def script_calls(
    sha: bytes, keys: BulkStrings, rows: BulkStrings, parts: Sequence[tuple[int, int]], last: Sequence[bytes] = ()
) -> list[Message]:
    """Return calls of a script that takes keys and as many arguments, one call for each slice of them.

    Args:
        last: one more argument for each call, if any.
    """
    calls: list[Message] = []
    for i, (start, stop) in enumerate(parts):
        tail = _bulks(last[i : i + 1])
        head = command(b"EVALSHA", sha, b"%d" % (stop - start), more=2 * (stop - start) + bool(tail))
        calls.append((head, keys.cut(start, stop), rows.cut(start, stop), tail))
    return calls


def exchange(
    connection: RespConnection,
    calls: Iterable[Message],
    window: int,
    again: type[Exception] | tuple[type[Exception], ...] = NoScriptError,
    burst: int = 1,
) -> tuple[list[Any], list[int]]:
    """Send calls with up to ``window`` unanswered; return the replies, and the places of those to be sent again.

    Args:
        connection: where to.
        calls: one message per call, each answered by one reply.
        window: how many calls may be under way, at least ``burst``.
        again: refusals that are no failure, by default that the script is unknown.
        burst: how many calls are sent at once.

    Raises:
        RedisError: a call was refused or the connection broke: it must be closed, since replies may be outstanding.
    """
    under_way: deque[int] = deque()
    replies: list[Any] = []
    refused: list[int] = []

    def answered(n: int) -> None:
        for _ in range(min(n, len(under_way))):
            try:
                replies.append(connection.read_response())
            except again:
                refused.append(under_way[0])
            under_way.popleft()

    first = 0
    waiting = iter(calls)
    while bundle := list(islice(waiting, burst)):
        if len(under_way) + len(bundle) > window:
            answered(burst)
        connection.send_packed_command([b"".join(chain.from_iterable(bundle))])
        under_way.extend(range(first, first + len(bundle)))
        first += len(bundle)
    answered(len(under_way))
    return replies, refused
