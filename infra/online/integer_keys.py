"""Encodes integer entity keys for the Redis protocol without a Python loop over the keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import overload

_END = "}\r\n"


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
