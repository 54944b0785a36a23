"""The ports to the online store; every adapter passes ``tests/contract/test_online.py``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import pyarrow as pa

from skewless.contract.errors import StoreError

Binaries: TypeAlias = Sequence[bytes] | pa.LargeBinaryArray  # an Arrow array must not hold nulls


class Mark(NamedTuple):
    """How far a log partition has been applied (SEMANTICS 4.5, 8.4).

    Args:
        position: it and all before it have been applied.
        watermark_us: all that had arrived by then has been applied; 0: unknown, or when written, as before.
    """

    position: int
    watermark_us: int = 0


Marked: TypeAlias = tuple[list[bytes | None], list[Mark | None]]  # rows, and markers


class OnlineWriter(Protocol):
    """Writes packed rows; blocking, for jobs.

    Every method raises StoreError when the store refuses or is away; what was written before
    stays written, and writing it again changes nothing.
    """

    def put(self, keys: Binaries, rows: Binaries) -> int:
        """Write each row unless the store holds one of a higher or equal rank (SEMANTICS 2.3).

        Atomic per row; a key may come more than once. Returns how many rows were written.
        """
        ...

    def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition has been applied, or None."""
        ...

    def set_marker(self, name: str, mark: Mark) -> None:
        """Record how far a partition was applied, never going back; call after the rows up to it were put."""
        ...

    def clock_offset_us(self) -> int:
        """Return the store's clock minus this machine's, in microseconds, measured now."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


# Awaited for each connection that was made, before anything is read over it.
OnConnect: TypeAlias = Callable[[], Awaitable[None]]


class OnlineReader(Protocol):
    """Reads packed rows; asynchronous, for the server.

    Raises StoreError when the store is away.
    """

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, in order, from one round trip; None: no row."""
        ...

    def ask(self, keys: Sequence[bytes], names: Sequence[str], done: Callable[[Marked | StoreError], None]) -> None:
        """Have ``done`` called, once, with what ``get_marked`` returns or raises; no task, nothing to await.

        It is called from the loop's thread, perhaps before this returns, and must not raise.
        """
        ...

    def linger(self) -> None:
        """Stay awake for a moment, for a reply that comes sooner than one could be woken; holds up the event loop.

        For those who asked for little and have nothing else to do.
        """
        ...

    async def get_marked(self, keys: Sequence[bytes], names: Sequence[str]) -> Marked:
        """Return the row of each key and the marker of each name, in order, from the same round trip.

        A marker is as the servers have it that were asked for the rows: after a loss it is an older one, or None.
        """
        ...

    async def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition has been applied, or None."""
        ...

    async def hold(self, keys: Sequence[bytes], seconds: int) -> None:
        """Leave a sign under each key that stands for so long: something that is read must not be removed."""
        ...

    async def close(self) -> None:
        """Give the connection back."""
        ...
