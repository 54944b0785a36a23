"""Encodes commands in Redis's wire format (RESP), from Arrow columns and integers without a Python object per key."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice, repeat
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.arrow_numbers import binary_scalar
from skewless.infra.reads.online.port import Binaries

_FEW = 100
_END = "}\r\n"
Message = Sequence[bytes | memoryview]


class KeySeparators(dict[int, str]):
    """The bytes between the integers of two keys, by the number of digits of the second."""

    def __init__(self, prefix: bytes) -> None:
        super().__init__()
        self.prefix = prefix

    def __missing__(self, length: int) -> str:
        size = len(self.prefix) + length + 1
        head = self[length] = f"{_END}${size}\r\n{self.prefix.decode('latin-1')}"
        return head


class IntegerKeys(Sequence[bytes]):
    r"""The keys of the first entity's rows in each view, then of the second's, and so on.

    >>> keys = IntegerKeys([KeySeparators(b"a{id|"), KeySeparators(b"b{id|")], [7, 10])
    >>> list(keys)
    [b'a{id|7}', b'b{id|7}', b'a{id|10}', b'b{id|10}']
    >>> keys.encode_bulks() == b"".join(b"$%d\r\n%b\r\n" % (len(key), key) for key in keys)
    True

    Args:
        heads: one per view; reused from one request to the next.
        values: the integer keys of the entities.
    """

    def __init__(self, heads: Sequence[KeySeparators], values: Sequence[int]) -> None:
        self._heads = heads
        self._values = values

    def __len__(self) -> int:
        return len(self._heads) * len(self._values)

    @overload
    def __getitem__(self, place: int) -> bytes: ...
    @overload
    def __getitem__(self, place: slice) -> list[bytes]: ...
    def __getitem__(self, place: int | slice) -> bytes | list[bytes]:
        if isinstance(place, slice):
            return [self[i] for i in range(len(self))[place]]
        entity, view = divmod(range(len(self))[place], len(self._heads))
        return b"%b%d}" % (self._heads[view].prefix, self._values[entity])

    def __iter__(self) -> Iterator[bytes]:
        for value in self._values:
            for head in self._heads:
                yield b"%b%d}" % (head.prefix, value)

    def encode_bulks(self) -> bytes:
        """Return the keys as RESP bulk strings."""
        if not self:
            return b""
        texts = list(map(str, self._values))
        lengths = list(map(len, texts))
        heads = [map(head.__getitem__, lengths) for head in self._heads]
        # A separator holds the end of one key and the head of the next, so the first end is cut and the last added.
        chunks = chain.from_iterable(zip(*chain.from_iterable(zip(heads, repeat(texts))), strict=True))
        return ("".join(chunks)[len(_END) :] + _END).encode("latin-1")


class RespConnection(Protocol):
    """The used part of redis-py's connections."""

    def send_packed_command(self, command: Message) -> None:
        """Send encoded bytes."""
        ...

    def read_response(self) -> Any:  # noqa: ANN401 - replies have any type
        """Return the next reply; raise it if it is an error."""
        ...


class BulkStrings:
    """Binary values as RESP bulk strings, ready to be sent in slices.

    Args:
        values: shape ``(n,)``, without nulls.
    """

    def __init__(self, values: Binaries) -> None:
        self._n = len(values)
        if self._n <= _FEW:
            texts = values.to_pylist() if isinstance(values, pa.Array) else values
            bulks = [b"$%d\r\n%b\r\n" % (len(text), text) for text in texts]
            self._data = memoryview(b"".join(bulks))
            self._offsets: Sequence[int] | npt.NDArray[np.int64] = list(accumulate(map(len, bulks), initial=0))
            return
        import pyarrow.compute as pc  # noqa: PLC0415 - a command that changes nothing does without

        array = values if isinstance(values, pa.Array) else pa.array(values, pa.large_binary())
        lengths = pc.binary_length(array).cast(pa.large_string()).cast(pa.large_binary())
        # One Arrow kernel builds all bulk strings. Slices of them are cut by offsets, without a copy.
        joined = pc.binary_join_element_wise(
            binary_scalar(b"$"), lengths, binary_scalar(b"\r\n"), array, binary_scalar(b"\r\n"), binary_scalar(b"")
        )
        _, offsets, data = joined.buffers()
        self._data, self._offsets = memoryview(data), np.frombuffer(offsets, dtype=np.int64)[joined.offset :]

    def __len__(self) -> int:
        return self._n

    def cut(self, start: int, stop: int) -> memoryview:
        """Return the bulk strings of the values ``start`` to ``stop``, end exclusive."""
        return self._data[self._offsets[start] : self._offsets[stop]]


def command(*parts: bytes, extra: int = 0) -> bytes:
    r"""Return a command, or its beginning if ``extra`` arguments follow.

    >>> command(b"GET", b"k")
    b'*2\r\n$3\r\nGET\r\n$1\r\nk\r\n'
    """
    return b"*%d\r\n" % (len(parts) + extra) + _encode_bulks(parts)


def mget(keys: Binaries, extra: Sequence[bytes] = ()) -> bytes:
    """Return the MGET command for keys and more keys."""
    head = b"*%d\r\n$4\r\nMGET\r\n" % (1 + len(keys) + len(extra))
    if isinstance(keys, pa.Array):
        return b"".join((head, BulkStrings(keys).cut(0, len(keys)), _encode_bulks(extra)))
    if isinstance(keys, IntegerKeys):
        return b"".join((head, keys.encode_bulks(), _encode_bulks(extra)))
    return head + _encode_bulks([*keys, *extra] if extra else keys)


def _encode_bulks(values: Sequence[bytes]) -> bytes:
    lines: list[bytes] = []
    for value in values:
        lines.append(_HEADS[len(value)])
        lines.append(value)
    lines.append(b"")
    return b"\r\n".join(lines)


class _LengthLines(dict[int, bytes]):
    """The header line of a bulk string, by the length of the value."""

    def __missing__(self, length: int) -> bytes:
        head = self[length] = b"$%d" % length
        return head


_HEADS = _LengthLines()


def script_calls(
    sha: bytes, keys: BulkStrings, rows: BulkStrings, parts: Sequence[tuple[int, int]], last: Sequence[bytes] = ()
) -> list[Message]:
    """Return one call of a script for each slice of keys, with the matching slice of arguments.

    Args:
        sha: digest of the script.
        keys: of all slices.
        rows: one argument for each key.
        parts: the bounds of the slices.
        last: one additional argument for each call, if any.
    """
    calls: list[Message] = []
    for i, (start, stop) in enumerate(parts):
        tail = _encode_bulks(last[i : i + 1])
        head = command(b"EVALSHA", sha, b"%d" % (stop - start), extra=2 * (stop - start) + bool(tail))
        calls.append((head, keys.cut(start, stop), rows.cut(start, stop), tail))
    return calls


def exchange(
    connection: RespConnection,
    calls: Iterable[Message],
    window: int,
    retry_on: tuple[type[Exception], ...],
    burst: int,
) -> tuple[list[Any], list[int]]:
    """Send calls, pipelined; return the replies, and the indices of calls that must be sent again.

    Args:
        connection: of the server.
        calls: one message per call, each answered by one reply.
        window: maximum number of calls without a reply, at least ``burst``.
        retry_on: error replies after which a call is repeated.
        burst: how many calls are sent at once.

    Raises:
        RedisError: the server rejected a call, or the connection broke. Close the connection: replies may be
            outstanding.
    """
    pending: deque[int] = deque()
    replies: list[Any] = []
    refused: list[int] = []

    def read_replies(n: int) -> None:
        for _ in range(min(n, len(pending))):
            try:
                replies.append(connection.read_response())
            except retry_on:
                refused.append(pending[0])
            pending.popleft()

    first = 0
    remaining = iter(calls)
    while batch := list(islice(remaining, burst)):
        # Replies are read only when the window is full, so that the server always has work.
        if len(pending) + len(batch) > window:
            read_replies(burst)
        connection.send_packed_command([b"".join(chain.from_iterable(batch))])
        pending.extend(range(first, first + len(batch)))
        first += len(batch)
    read_replies(len(pending))
    return replies, refused
