"""The interface of an online store; every adapter must pass the tests in ``tests/contract``.

A store holds bytes under keys, and markers under names, in one key space: ``delete`` removes both by prefix. All
processes of a project share it. An open store can be used from several threads, and after a fork.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.contract.status import BoolArray

if TYPE_CHECKING:
    import asyncio

Binaries: TypeAlias = Sequence[bytes] | pa.LargeBinaryArray  # an Arrow array must not hold nulls
Letters: TypeAlias = npt.NDArray[np.uint8]

# The result of ``append`` for a state: appended; appended, and due to be rolled up; the complete update was already
# applied; a part of it was already applied, so nothing was appended; the state is corrupt or another view's.
APPENDED, LONG, SEEN, PARTLY_SEEN, FOREIGN = b"ARSPF"
# The position of a marker whose rows must be applied again. It reads as a missing marker and advances like any other.
LOST = -2


class Marker(NamedTuple):
    """How far a log partition has been applied (SEMANTICS 4.5, 8.4).

    Args:
        position: all rows up to and including this log position have been applied.
        watermark_us: all data that arrived before this time has been applied, microseconds. 0 means unknown in a read,
            and unchanged in a write.
    """

    position: int
    watermark_us: int = 0


RowsAndMarkers: TypeAlias = tuple[list[bytes | None], list[Marker | None]]
ReadCallback: TypeAlias = Callable[[RowsAndMarkers | StoreError], None]


class OnlineWriter(Protocol):
    """Writes packed rows; blocking, for jobs.

    Every method raises StoreError when the store rejects the command or is unavailable. Earlier writes are kept, and
    writing the same rows again changes nothing. Values never expire.
    """

    def put(self, keys: Binaries, rows: Binaries) -> int:
        """Write each row unless the store holds one of a higher or equal rank (SEMANTICS 2.3).

        A row begins with its rank, ``RANK_BYTES`` that are compared as bytes. Atomic per row; a key may occur more than
        once. Returns the number of written rows.
        """
        ...

    def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition is certainly applied, or None.

        Call it before ``put``: ``set_markers`` fails if the store was replaced or restarted since.
        """
        ...

    def set_markers(self, marks: Mapping[str, Marker], expected: Mapping[str, int | None] | None = None) -> None:
        """Record applied positions. Call it after the rows up to there were written. Markers never go back.

        Args:
            marks: by name, the new markers.
            expected: the minimum position of each marker before the call, None: any; by default any.

        Raises:
            StoreError: a marker is behind the expected position, so the store has lost writes; other markers may
                have been recorded.
        """
        ...

    def delete(self, prefix: str) -> int:
        """Delete all keys and markers with a prefix, in batches; return how many there were.

        Markers go first: after an interruption, no marker is left without its keys. Call it again to delete the rest.
        Latest values stay if a run has set their marker since: this process may have been suspended.
        """
        ...

    def clock_offset_us(self) -> int:
        """Return the store's clock minus this machine's clock, in microseconds, measured now."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class OnlineStore(OnlineWriter, Protocol):
    """The complete writing interface: rows, their repair, and the packed states of windowed views (``StateView``)."""

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the value of each key, in order; None: no value."""
        ...

    def replace(
        self,
        keys: Binaries,
        old: Sequence[bytes | None],
        new: Binaries,
        heads: Sequence[bytes] | None = None,
    ) -> BoolArray:
        """Replace values that have not changed since they were read, whatever their rank; return which. Atomic per key.

        Args:
            keys: shape ``(n,)``.
            old: the values that were read; None: the key had no value.
            new: the new values; empty: the key is deleted.
            heads: the beginning of each old value; together with its size it identifies the value. None: compare
                complete values.
        """
        ...

    def append(self, keys: Binaries, updates: Binaries, marker: tuple[str, int | None]) -> Letters:
        """Append records to states, once for each position of a log partition (SEMANTICS 4.3); atomic per key.

        ``skewless/contract/windows/codec.py`` describes the bytes of states and updates. A state without a slot for the
        update's partition gets one. A key without a state gets one whose time is ``EVER``. A state is due to be rolled
        up when it is longer than twice its size after the last roll-up plus the update's limit.

        Args:
            keys: of the states, shape ``(n,)``.
            updates: one packed update for each key.
            marker: name of a marker and its minimum position (None: any).

        Returns:
            A letter for each key: ``APPENDED``, ``LONG``, ``SEEN``, ``PARTLY_SEEN`` or ``FOREIGN``.

        Raises:
            StoreError: the marker is behind its minimum. The store has lost writes, and appending would hide that.
        """
        ...

    def read_markers(self, names: Sequence[str]) -> list[Marker | None]:
        """Return markers by name; a caller that sets one calls ``marker`` first."""
        ...

    def refresh_markers(self, marks: Mapping[str, Marker]) -> None:
        """Record new watermarks; positions stay unchanged.

        Raises:
            StoreError: a marker is missing or behind the given position.
        """
        ...

    def publish(self, key: bytes, text: bytes) -> None:
        """Set a key that servers read, whatever its value."""
        ...

    def remove(self, keys: Sequence[bytes]) -> int:
        """Delete the values of keys, if they have any; return how many had one."""
        ...


# Awaited for each new connection, before anything is read over it. Its errors go to the caller of the read.
OnConnect: TypeAlias = Callable[[], Awaitable[None]]


class OnlineReader(Protocol):
    """Reads packed rows; asynchronous, for the prediction server.

    Every method raises StoreError when the store is unavailable.
    """

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key, in order, from one round trip; None: no row."""
        ...

    def start_read(self, keys: Sequence[bytes], names: Sequence[str], done: ReadCallback) -> None:
        """Call ``done`` once with the result or error of ``get_with_markers``; needs no task and no await.

        ``done`` runs in the event loop's thread, perhaps before this returns, and must not raise.
        """
        ...

    def busy_poll(self) -> None:
        """Busy-poll for up to 100 us for a reply, which is faster than a wake-up; blocks the event loop.

        Only for callers that have sent a small request and have nothing else to do.
        """
        ...

    async def get_with_markers(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return the row of each key and the marker of each name, in order, from the same round trip.

        Markers come from the servers that returned the rows: after a loss of writes a marker is older, or None.
        """
        ...

    async def mark_in_use(self, keys: Sequence[bytes], seconds: int) -> None:
        """Set each key, to expire after ``seconds``: while it exists, nothing deletes the states that it names."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


def settle(future: asyncio.Future[Any], outcome: Any) -> None:  # noqa: ANN401 - of any kind
    """Set the result or the error of a future, unless it is already done."""
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


class BlockingOnlineReader(Protocol):
    """The blocking counterpart of ``OnlineReader``, for jobs, notebooks and Feast."""

    def on_connect(self, work: Callable[[], None]) -> None:
        """Register a callback for each new connection; it runs before anything is read over it."""
        ...

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the row of each key, in order, from one round trip; None: no row."""
        ...

    def get_with_markers(self, keys: Sequence[bytes], names: Sequence[str]) -> RowsAndMarkers:
        """Return the row of each key and the marker of each name, in order, from the same round trip."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...


@dataclass(frozen=True, kw_only=True)
class OnlineAdapter:
    """Opens an online store by URL. A package registers such an object as an entry point ``skewless.online_stores``.

    Args:
        store: opens the writing side; raises StoreError if the store is unavailable or may evict keys.
        reader: makes the reading side for a server, given a URL, the timeout of a read in seconds, and a callback for
            each new connection. It does not connect yet.
        blocking_reader: opens the reading side for jobs and notebooks.
    """

    store: Callable[[str], OnlineStore]
    reader: Callable[[str, float, OnConnect | None], OnlineReader]
    blocking_reader: Callable[[str], BlockingOnlineReader]
