"""The ports to the online store; every adapter passes ``tests/contract/test_online.py``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import pyarrow as pa

from skewless.contract.errors import StoreError

if TYPE_CHECKING:
    from skewless.contract.window_events import ViewEvents
    from skewless.contract.windows.tiles import Tiles
    from skewless.infra.online.state_view import StateView

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


class StateStore(Protocol):
    """Writes the states of windowed views; blocking. Every method raises StoreError if the store refuses or is away."""

    def append(self, states: StateView, events: ViewEvents, m: int, marker: tuple[str, int | None]) -> int:
        """Add events of one partition to the states of their entities; return how many states were changed.

        Events at positions that a state has seen are left out, so that it may be done again; but those of one
        partition must come in the order of their positions.

        Args:
            m: states that have grown long are rolled up to this moment, microseconds.
            marker: name and position of the marker that says how far the partition was applied. A server where it
                is further back has lost writes: it refuses, since it would never take what is missing.
        """
        ...

    def roll(self, states: StateView, keys: pa.Array, m: int) -> int:
        """Roll states up to a moment; return how many; one that changes meanwhile is left for the next time."""
        ...

    def create(self, states: StateView, keys: pa.Table, tiles: Tiles) -> None:
        """Write whole states of a generation that nobody reads or appends to yet."""
        ...

    def read(self, keys: Binaries) -> list[bytes | None]:
        """Return packed states by their names in Redis; None: there is none."""
        ...

    def replace(self, states: StateView, keys: pa.Array, old: Sequence[bytes | None], new: pa.Array) -> int:
        """Replace states that are still as they were read; return how many: a repair."""
        ...

    def marker(self, name: str) -> int | None:
        """Return the position up to which a partition has surely been applied, or None."""
        ...

    def peek_markers(self, names: Sequence[str]) -> list[int | None]:
        """Return what ``marker`` would of each name, from one round trip; whoever sets one asks ``marker`` before."""
        ...

    def peek_marks(self, names: Sequence[str]) -> list[Mark | None]:
        """Return how far partitions were surely applied, and up to when all that had arrived was."""
        ...

    def refresh_markers(self, marks: Mapping[str, Mark]) -> None:
        """Record new watermarks of markers that stand where they should; refused where one is further back."""
        ...

    def set_markers(self, marks: Mapping[str, Mark], expected: Mapping[str, int | None]) -> None:
        """Record how far partitions were applied.

        It is refused where a marker is further back than expected, or a server is another by now.
        """
        ...

    def publish(self, key: bytes, text: bytes) -> None:
        """Put a note where servers look."""
        ...

    def exists(self, key: bytes) -> bool:
        """Say whether a key stands."""
        ...

    def delete(self, prefix: str) -> int:
        """Delete every key that begins with a prefix; return how many."""
        ...


class OnlineStore(OnlineWriter, Protocol):
    """The whole writing side: rows, their repair, and the states of windowed views."""

    def replace(self, keys: Sequence[bytes], old: Sequence[bytes | None], new: Sequence[bytes]) -> int:
        """Put rows in the place of what is still as it was read, whatever its rank; return how many: a repair."""
        ...

    def delete(self, prefix: str) -> int:
        """Delete every key that begins with a prefix, some at a time; return how many. Running it again goes on."""
        ...

    def tiles(self) -> StateStore:
        """Return the writing side of windowed views, over the same connection."""
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


class BlockingOnlineReader(Protocol):
    """Reads as ``OnlineReader`` does, in a blocking way: for jobs, notebooks and Feast."""

    def on_connect(self, work: Callable[[], None]) -> None:
        """Have something done whenever a connection was made, before anything is read over it."""
        ...

    def get(self, keys: Binaries) -> list[bytes | None]:
        """Return the row of each key, in order, from one round trip; None: no row."""
        ...

    def get_marked(self, keys: Sequence[bytes], names: Sequence[str]) -> Marked:
        """Return the row of each key and the marker of each name, in order, from the same round trip."""
        ...

    def marker(self, name: str) -> int | None:
        """Return the log position up to which a partition has been applied, or None."""
        ...

    def close(self) -> None:
        """Give the connections back."""
        ...
