"""The outbox of a sink: the prediction log from the position on that the sink has confirmed.

There is no second log: a decision is delivered because it is in the prediction log, so it was durable before it was
sent. Each sink has a confirmed position, and a restart delivers again from there: the same ids, and the same bytes.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.reading import read_tables
from skewless.infra.platform.storage.objects import corrupt_error
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import PREDICTIONS
from skewless_decisions.decision import COLUMNS, LoggedDecision, find_decisions
from skewless_decisions.sink_positions import Refusal, SinkPosition, SinkPositions

_MOST_OFFERED, _FOUND_AT_A_TIME = 20_000, 10_000


@dataclass(frozen=True, kw_only=True)
class DecisionBatch:
    """Decisions of consecutive positions, in order of the log.

    Args:
        first, last: positions in the prediction log, both included; other predictions are in between.
        positions: of the decisions.
        decisions: none, if no prediction between the positions is a decision for the sink.
    """

    first: int
    last: int
    positions: Sequence[int]
    decisions: Sequence[LoggedDecision]


class DecisionSink(Protocol):
    """Delivers to one sink; used from one thread. Every adapter must pass ``tests/contract/test_sinks.py``.

    Attributes:
        retry_after_s: for how long the receiver asked to wait after the last StoreError; None: it did not.
    """

    retry_after_s: float | None

    def send(self, batch: DecisionBatch) -> Sequence[Refusal]:
        """Return when each decision of a batch is stored or refused for good; return the refused ones.

        Decisions of one key are stored in their order. A decision that was stored may be sent again, with the same
        bytes: if this process was killed, or after a StoreError.

        Raises:
            StoreError: the sink is unavailable; any part of the batch may be stored. Send the same batch again later.
            DefinitionError: it must not be sent there; nothing was stored. Close this object.
        """
        ...

    def close(self) -> None:
        """Close the connections; waits for no delivery."""
        ...


class Outbox:
    """The decisions that a sink has not confirmed, for the process that has its lease.

    Used from one thread, except for ``offer``.

    Args:
        state: of the project.
        sink: name of the sink.
        streams: names of its decision streams; None: all.
        check: the fence of every write; raises ConflictError if another process has the sink's lease.
    """

    def __init__(
        self, state: ProjectState, sink: str, *, streams: Collection[str] | None, check: Callable[[], None]
    ) -> None:
        self._sink, self._streams, self._check = sink, streams, check
        self._log = PartitionLog(state, PREDICTIONS)
        self._positions = SinkPositions(state.database)
        self._offered: deque[DecisionBatch] = deque()
        self._n_offered = 0
        self._lock = threading.Lock()
        self.position = self._positions.begin(sink, self._log.next_seq())
        self.next = self.position.next

    def offer(self, batch: DecisionBatch) -> None:
        """Pass decisions that were just appended, so that nobody reads them from the log; any thread may call it.

        Beyond a bound, batches are not kept: they are read from the log.
        """
        with self._lock:
            if self._n_offered + len(batch.decisions) <= _MOST_OFFERED:
                self._offered.append(batch)
                self._n_offered += len(batch.decisions)

    def read(self, most: int) -> DecisionBatch | None:
        """Return the next decisions, at most so many, and advance; None: there is no further prediction.

        Raises:
            StoreError: the database or the storage is unavailable.
        """
        batch = self._take_offered(most) if self.position.claimed is None else None
        if batch is None:
            batch = self._read_log(most)
        if batch is not None:
            self.next = batch.last + 1
        return batch

    def claim(self, batch: DecisionBatch) -> None:
        """Record, before a batch is written, that a restart must write the same batch.

        Raises:
            ConflictError, StoreError: as ``confirm``.
        """
        if self.position.claimed != batch.last:
            self._write(replace(self.position, claimed=batch.last), ())

    def confirm(self, last: int, n: int, refusals: Sequence[Refusal] = ()) -> None:
        """Record that all decisions up to a position are stored or refused.

        Args:
            last: position of the prediction log.
            n: number of decisions since the last call that were stored.
            refusals: the decisions that were refused since then.

        Raises:
            ConflictError: another process delivers to the sink.
            StoreError: the database is unavailable.
        """
        confirmed, refused = self.position.confirmed + n, self.position.refused + len(refusals)
        self._write(replace(self.position, next=last + 1, confirmed=confirmed, refused=refused, claimed=None), refusals)

    def _take_offered(self, most: int) -> DecisionBatch | None:
        """Return offered batches that continue at the position, joined; None: the log has the next rows."""
        first, positions, decisions = self.next, list[int](), list[LoggedDecision]()
        end = first
        with self._lock:
            while self._offered and self._offered[0].first <= end:
                batch = self._offered[0]
                if end <= batch.last:
                    start = bisect_left(batch.positions, end)
                    stop = start + most - len(decisions)
                    positions += batch.positions[start:stop]
                    decisions += batch.decisions[start:stop]
                    if stop < len(batch.positions):
                        end = batch.positions[stop]
                        break
                    end = batch.last + 1
                self._offered.popleft()
                self._n_offered -= len(batch.decisions)
        return (
            DecisionBatch(first=first, last=end - 1, positions=positions, decisions=decisions) if end > first else None
        )

    def _read_log(self, most: int) -> DecisionBatch | None:
        first, claimed = self.next, self.position.claimed
        last, positions, decisions = first - 1, list[int](), list[LoggedDecision]()
        for start, rows in self._scan(first, claimed, most):
            found = find_decisions(rows, self._streams)
            room = most - len(decisions) if claimed is None else len(found)
            positions += [start + offset for offset, _ in found[:room]]
            decisions += [decision for _, decision in found[:room]]
            last = start + rows.num_rows - 1 if len(found) <= room else start + found[room][0] - 1
            if claimed is None and len(decisions) >= most:
                break
        if last < first:
            return None
        return DecisionBatch(first=first, last=last, positions=positions, decisions=decisions)

    def _scan(self, first: int, last: int | None, step: int) -> Iterator[tuple[int, pa.Table]]:
        """Yield rows and the position of the first of them, in order; positions of deleted rows are skipped."""
        for segment in self._log.segments(first, last):
            begin, end = max(segment.first, first), segment.last if last is None else min(segment.last, last)
            path = Path(self._log.local_files([segment])[0])
            if begin > segment.first and _count_rows(path) < segment.rows:
                begin = segment.first  # rows were erased, so that positions within the file are unknown
            for rows in read_tables(path, segment.first, begin, end, COLUMNS):
                for offset in range(0, rows.num_rows, step):
                    yield begin + offset, rows.slice(offset, step)
                begin += rows.num_rows

    def find(self, letters: Iterable[Refusal]) -> dict[str, LoggedDecision]:
        """Return the decisions of dead letters that the log still has, by id, in the order of the log.

        Raises:
            StoreError: the database or the storage is unavailable.
        """
        wanted = {letter.position: letter.id for letter in letters}
        positions, found = sorted(wanted), dict[str, LoggedDecision]()
        while positions:
            segments = self._log.segments(positions[0], positions[0])
            n = bisect_right(positions, segments[0].last) if segments else 1
            ids = {wanted[position] for position in positions[:n]}
            if segments:
                for _, rows in self._scan(positions[0], positions[n - 1], _FOUND_AT_A_TIME):
                    decisions = (decision for _, decision in find_decisions(rows, self._streams))
                    found |= {decision.id: decision for decision in decisions if decision.id in ids}
            del positions[:n]
        return found

    def remember(self, facts: dict[str, Any]) -> None:
        """Record facts that must stay the same for the same bytes."""
        if facts != self.position.facts:
            self._write(replace(self.position, facts=facts), ())

    def count_waiting(self) -> int:
        """Return the number of rows of the prediction log after the last batch that was read."""
        return max(0, self._log.next_seq() - self.next)

    def _write(self, position: SinkPosition, refusals: Sequence[Refusal]) -> None:
        self._positions.write(self._sink, position, refusals, self._check)
        self.position = position


def _count_rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise corrupt_error(path, error) from error
