"""The decisions of decision streams in the prediction log, and the positions up to which events are decided.

Decisions and position are written in one transaction (SEMANTICS 9.3): so an event is decided once, whichever worker
dies or loses its partition in between.
"""

from __future__ import annotations

import io
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.decisions import Changes, DecisionStream
from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.log.catalog import IMPORTED, Catalog, Segment
from skewless.infra.log.log_columns import encode_columns
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.checksum import seal_rows
from skewless.infra.records.predictions.segments import PREDICTIONS, SCHEMA, WRITE_OPTIONS
from skewless.operations.data.decision_port import DecisionStatus

_MOST_DEAD = 1_000
_FEW = 256
_FEW_OPTIONS = {"compression": "snappy", "use_dictionary": False, "write_statistics": ["t", "model", "version"]}


@dataclass(frozen=True, kw_only=True)
class DecidedPosition:
    """How far a decision stream has decided the events of a log partition.

    Args:
        next: position of the first event that is not decided.
        newest_us: greatest event time of the accepted events before it, microseconds; None: unknown.
        decided, skipped, late, dead: number of accepted events before it that were decided, skipped by the condition or
            as late, decided as late, or could not be decided.
    """

    next: int
    newest_us: int | None = None
    decided: int = 0
    skipped: int = 0
    late: int = 0
    dead: int = 0


@dataclass(frozen=True, kw_only=True)
class DeadEvent:
    """An event that met the condition of a decision stream and can never be decided.

    Args:
        partition, seq: log partition and position of the event.
        reason: why, without values of the event.
    """

    partition: str
    seq: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class DecidedRange:
    """Events of a log partition that a decision stream has decided, or skipped.

    Args:
        before: the recorded position.
        after: the new position.
        dead: those of the events that cannot be decided.
    """

    stream: str
    partition: str
    before: DecidedPosition
    after: DecidedPosition
    dead: Sequence[DeadEvent] = ()


class DecisionLog:
    """Appends decisions to the prediction log of a project; used from one thread."""

    def __init__(self, state: ProjectState) -> None:
        self.state = state
        self._catalog = Catalog(state.database)
        self._positions = Documents(state.database, "decided_positions")
        self._begins = Documents(state.database, "decision_streams")
        self._dead = Records(state.database, "dead_events")

    def begin(self, stream: str, ends: Mapping[str, int]) -> None:
        """Record where a new decision stream begins: behind the events that were accepted before this call.

        Args:
            ends: last position of each log partition of its events; a partition that comes later is decided from its
                start.
        """
        if self._begins.get(stream) is None:
            self._begins.create(stream, {name: end + 1 for name, end in ends.items()})

    def begin_view(self, stream: str, partition: str, last: int) -> None:
        """Record where a stream begins in the log of a view that is new to it: behind its first load."""
        begins = self._begins.get(stream)
        if begins is None or partition not in begins:
            with self._begins.edit(stream, {}) as body:
                body.setdefault(partition, last + 1)

    def read(self, stream: str, partition: str) -> DecidedPosition:
        """Return how far a stream has decided a partition; a partition that is newer than the stream: from its start.

        Raises:
            StoreError: the database is unavailable.
        """
        body = self._positions.get(f"{stream}/{partition}")
        if body is not None:
            return DecidedPosition(**body)
        return DecidedPosition(next=(self._begins.get(stream) or {}).get(partition, 0))

    def list_positions(self) -> dict[str, DecidedPosition]:
        """Return all positions, by stream and partition as ``STREAM/PARTITION``."""
        return {name: DecidedPosition(**body) for name, body in self._positions.list_all().items()}

    def read_status(self, stream: DecisionStream, ends: Mapping[str, int]) -> DecisionStatus:
        """Return how far a stream has decided.

        Args:
            ends: last position of each log partition of its events.
        """
        positions = self.list_positions()
        lag, counts = 0, dict.fromkeys(("decided", "skipped", "late", "dead"), 0)
        for partition, end in ends.items():
            if IMPORTED not in partition:
                position = positions.get(f"{stream.name}/{partition}") or self.read(stream.name, partition)
                lag += max(0, end + 1 - position.next)
                counts = {name: count + getattr(position, name) for name, count in counts.items()}
        source = stream.when.view if isinstance(stream.when, Changes) else str(stream.source)
        return DecisionStatus(stream=stream.name, source=source, model=stream.model, lag=lag, **counts)

    def list_dead(self, stream: str, most: int = _MOST_DEAD) -> list[DeadEvent]:
        """Return the latest dead letters of a stream, latest first."""
        return [DeadEvent(**body) for _, body in self._dead.read_latest_first(stream, most)]

    def count_dead(self, stream: str) -> int:
        """Return the number of dead letters of a stream that are kept."""
        return self._dead.count(stream)

    def keep_only(self, streams: Collection[str]) -> None:
        """Delete the positions of streams that were removed from the definitions: added again, they are new."""
        for name in self._begins.names():
            if name not in streams:
                self._forget(name)

    def _forget(self, stream: str) -> None:
        with self.state.database.transaction():
            for name in self._positions.list_all():
                if name.startswith(f"{stream}/"):
                    self._positions.delete(name)
            self._begins.delete(stream)

    def append(
        self,
        rows: pa.Table | None,
        ranges: Sequence[DecidedRange],
        at_us: int,
        ensure_logged: Callable[[], None] = lambda: None,
    ) -> Segment | None:
        """Append decisions durably, and move the positions of their streams; return their segment.

        An append that failed with a StoreError may still have been written: read the positions again.

        Args:
            rows: in the schema of the prediction log, without their seal; None: no event is decided, only skipped.
            ranges: the events that these decisions, and no others, are about.
            at_us: time of the decisions, microseconds.
            ensure_logged: returns when the events are in their log; called before the transaction.

        Raises:
            ConflictError: another worker has decided some of these events; nothing was written.
            StoreError: the decisions cannot be written.
        """
        if rows is None or not rows.num_rows:
            ensure_logged()
            with self.state.database.transaction():
                self._move(ranges)
            return None
        storage, began_at = self.state.storage, time.time()
        file = f"{at_us:020d}-{uuid.uuid4().hex[:12]}"
        stored = storage.put(f"{PREDICTIONS}/{file}.parquet", _encode(seal_rows(rows, file)))
        is_logged = False
        try:
            ensure_logged()  # after the file, because the events are written at the same time
            is_logged = True
            with self.state.database.transaction():
                self._move(ranges)
                return self._catalog.append(
                    PREDICTIONS,
                    stored,
                    rows.num_rows,
                    began_at=began_at,
                    at_us=at_us,
                    columns=encode_columns(SCHEMA),
                )
        except (ConflictError, StoreError) as error:
            # If the transaction failed with a StoreError, it may have been committed.
            if not is_logged or isinstance(error, ConflictError):
                with suppress(StoreError):
                    self._catalog.discard(storage, PREDICTIONS, stored.name)
            raise

    def _move(self, ranges: Sequence[DecidedRange]) -> None:
        for item in ranges:
            if self.read(item.stream, item.partition) != item.before:
                raise ConflictError(
                    f"decision stream {item.stream!r}",
                    f"has decided events of log partition {item.partition!r} in another process",
                    fix="nothing: the worker continues from there",
                )
            self._positions.put(f"{item.stream}/{item.partition}", asdict(item.after))
            for event in item.dead:
                self._dead.add(item.stream, asdict(event))
            if item.dead:
                self._dead.delete_before(item.stream, self._dead.latest_number(item.stream) - _MOST_DEAD + 1)


def _encode(rows: pa.Table) -> memoryview:
    sink = io.BytesIO()
    # Of a few rows, dictionaries, zstd and other encodings cost more than they save; compaction writes them.
    options = WRITE_OPTIONS if rows.num_rows > _FEW else _FEW_OPTIONS
    pq.write_table(rows, sink, **options)
    return sink.getbuffer()
