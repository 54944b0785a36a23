"""The ports to the online store; every adapter passes ``tests/contract/test_online.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class OnlineWriter(Protocol):
    """Writes packed rows; blocking, for jobs.

    Every method raises StoreError when the store refuses or is away; what was written before
    stays written, and writing it again changes nothing.
    """

    def put(self, keys: Sequence[bytes], rows: Sequence[bytes]) -> int:
        """Write each row unless the store holds one of a higher or equal rank (SEMANTICS 2.3).

        Atomic per row. Returns how many rows were written.
        """
        ...

    def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition has been applied, or None."""
        ...

    def set_marker(self, name: str, seq: int) -> None:
        """Record the position, never going back; call after the rows up to it were put."""
        ...

    def clock_offset_us(self) -> int:
        """Return the store's clock minus this machine's, in microseconds, measured now."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


class OnlineReader(Protocol):
    """Reads packed rows; asynchronous, for the server.

    Raises StoreError when the store is away.
    """

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, in order, from one round trip; None: no row."""
        ...

    async def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition has been applied, or None."""
        ...

    async def close(self) -> None:
        """Give the connection back."""
        ...
