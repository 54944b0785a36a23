"""Scores events: inputs from their fields, features as of just before each, and rows for the prediction log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.clock import Clock
from skewless.contract.decisions import DecisionStream
from skewless.contract.errors import SkewlessError, StoreError
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.records.predictions.batches import ConstantColumns, to_batch
from skewless.infra.records.predictions.ids import decision_ids
from skewless.infra.records.predictions.record import DecidedEvents, LoadColumns
from skewless.infra.records.predictions.segments import CONTENT
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.arm import Arm, ModelCounts
from skewless.serving.prediction.group import ReadTimes, make_record
from skewless.serving.prediction.input_texts import ColumnRows, input_texts
from skewless.serving.prediction.routing import ScoringRequest
from skewless.serving.prediction.scored_batch import ScoredBatch
from skewless_decisions.decision_log import DeadEvent
from skewless_decisions.events import AcceptedEvents
from skewless_decisions.inputs import EventInputs
from skewless_decisions.models import DecidingModels
from skewless_decisions.pending_events import PendingEvents
from skewless_decisions.reads import DecisionReads, EventVectors

_log = EventLogger()


@dataclass(frozen=True, kw_only=True, eq=False)
class DecidedBatch:
    """The decisions of one stream for some events.

    Args:
        rows: for the prediction log, in the order of the events; then those of shadows.
        n: number of decisions.
        n_late: how many of them are about late events.
        scored: by version, for the counts.
        seconds: from the acceptance of each event to its decision.
    """

    rows: pa.Table
    n: int
    n_late: int
    scored: Sequence[tuple[Arm | None, ScoredBatch, ModelCounts]]
    seconds: Sequence[float]

    def count(self) -> None:
        """Count the decisions, once they are durable."""
        for arm, scored, counts in self.scored:
            counts.count(scored, len(scored.ids))
            if arm is not None:
                arm.counts.count(scored, len(scored.ids), self.seconds[: len(scored.ids)])


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredEvents:
    """The result of scoring events.

    Args:
        batch: None: no event is decided.
        dead: events that can never be decided.
        undecided: position of the first event that must wait; None: no event.
    """

    batch: DecidedBatch | None
    dead: Sequence[DeadEvent]
    undecided: int | None = None


class _PartRead(NamedTuple):
    """The events of one version with their vectors; None: it rejects all of them."""

    request: ScoringRequest
    events: DecidedEvents
    vectors: EventVectors | None
    dead: Sequence[DeadEvent]


@dataclass(kw_only=True, eq=False)
class EventScorer:
    """Scores the events of one source; used from one thread.

    Args:
        event_column: field with the event time.
        models: the versions that decide.
        reads: of features.
        metrics: of models and views.
        clock: of the project.
    """

    event_column: str
    models: DecidingModels
    reads: DecisionReads
    metrics: Metrics
    clock: Clock
    _counts: dict[tuple[str, str], ModelCounts] = field(default_factory=dict)
    _constants: dict[int, tuple[LoadColumns, ConstantColumns]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare the parser of inputs."""
        self._inputs = EventInputs(self.event_column, self.metrics)

    def score(
        self, stream: DecisionStream, events: AcceptedEvents, times: DecidedEvents, pending: PendingEvents
    ) -> ScoredEvents:
        """Return the decisions of a stream for events, at least one.

        Raises:
            SkewlessError: none can be decided now.
        """
        model = self.models.get(stream.model)
        columns, valid, dead = self._inputs.parse(stream, model.champion, events, pending)
        if not len(valid):
            return ScoredEvents(batch=None, dead=dead)
        events, times = events.select(valid), times.take(valid)
        try:
            return self._score(stream, columns, events, times, pending, dead)
        except StoreError as error:
            return self._score_expired(stream, columns, events, times, pending, dead, error)

    def _score_expired(
        self,
        stream: DecisionStream,
        columns: Mapping[str, Sequence[Any]],
        events: AcceptedEvents,
        times: DecidedEvents,
        pending: PendingEvents,
        dead: list[DeadEvent],
        error: StoreError,
    ) -> ScoredEvents:
        """Decide the events whose deadline has passed with nulls, or give them up; the others wait."""
        deadline_us = stream.deadline_us
        waits = np.ones(len(events), dtype=np.bool_)
        if deadline_us is not None:
            waits = events.ingest + deadline_us > self.clock.now_us()
        n = int(np.argmax(waits)) if waits.any() else len(events)
        if not n:
            raise error
        first = np.arange(n)
        undecided = int(events.seq[n]) if n < len(events) else None
        dead = [event for event in dead if undecided is None or event.seq < undecided]
        events, times = events.select(first), times.take(first)
        if self.models.get(stream.model).champion.package.spec.missing == "refuse":
            reason = f"the deadline has passed: {error.thing} {error.problem}"
            dead += [DeadEvent(partition=pending.partition, seq=seq, reason=reason) for seq in events.seq.tolist()]
            return ScoredEvents(batch=None, dead=dead, undecided=undecided)
        part = {name: values[:n] for name, values in columns.items()}
        scored = self._score(stream, part, events, times, pending, dead, degraded=True)
        return replace(scored, undecided=undecided)

    def _score(
        self,
        stream: DecisionStream,
        columns: Mapping[str, Sequence[Any]],
        events: AcceptedEvents,
        times: DecidedEvents,
        pending: PendingEvents,
        dead: list[DeadEvent],
        *,
        degraded: bool = False,
    ) -> ScoredEvents:
        model = self.models.get(stream.model)
        request = ScoringRequest(model=model.champion, n=len(events), rows=ColumnRows(columns), columns=columns)
        parts = [(request, range(len(events)))] if model.routing is None else model.routing.split(request)
        tables: list[pa.RecordBatch] = []
        shadows: list[pa.RecordBatch] = []
        scored: list[tuple[Arm | None, ScoredBatch, ModelCounts]] = []
        dead = list(dead)
        for part, rows in parts:
            own = times.take(np.array(rows, dtype=np.int64))
            read = self._read(part, own, pending, degraded=degraded)
            dead += read.dead
            if read.vectors is None:
                continue
            batch, record = self._score_part(read.request, read.events, read.vectors)
            scored.append((part.arm, batch, self._counts_of(part.model)))
            tables.append(record)
            shadows += self._score_shadows(read.request, read.events, read.vectors, batch, pending)
        if not tables:
            return ScoredEvents(batch=None, dead=dead)
        now_us = self.clock.now_us()
        log_rows = _in_order(pa.Table.from_batches(tables, schema=CONTENT), several=len(tables) > 1)
        result = DecidedBatch(
            rows=pa.concat_tables([log_rows, pa.Table.from_batches(shadows, schema=CONTENT)]) if shadows else log_rows,
            n=log_rows.num_rows,
            n_late=int(times.late.sum()),
            scored=scored,
            seconds=((now_us - events.ingest) / 1e6).tolist(),
        )
        return ScoredEvents(batch=result, dead=dead)

    def _read(self, part: ScoringRequest, own: DecidedEvents, pending: PendingEvents, *, degraded: bool) -> _PartRead:
        """Return the vectors of the events that the model does not reject."""
        dead: list[DeadEvent] = []
        while part.n:
            vectors = self.reads.read(part.model, part.columns or {}, own, pending, degraded=degraded)
            refused = self._find_refused(part.model, vectors)
            if not refused:
                return _PartRead(part, own, vectors, dead)
            dead += [DeadEvent(partition=own.partition, seq=int(own.seq[i]), reason=why) for i, why in refused.items()]
            # Rare, so the others are read again.
            kept = np.array([i for i in range(part.n) if i not in refused], dtype=np.int64)
            columns = {name: [values[i] for i in kept.tolist()] for name, values in (part.columns or {}).items()}
            part, own = part._replace(n=len(kept), rows=ColumnRows(columns), columns=columns), own.take(kept)
        return _PartRead(part, own, None, dead)

    def _score_part(
        self, part: ScoringRequest, own: DecidedEvents, vectors: EventVectors, *, serves: bool = True
    ) -> tuple[ScoredBatch, pa.RecordBatch]:
        """Return the scores and log rows of the events of one version.

        Args:
            serves: its actions are taken, so that it may explore; those of a shadow are not.
        """
        model, assembled = part.model, vectors.assembled
        ids = decision_ids(own.stream, own.partition, own.seq.tolist(), own.t.tolist())
        explore = model.package.spec.explore if serves else None
        scored = ScoredBatch(
            model=model,
            ids=ids,
            t=int(own.t.max()),
            scores=model.runtime.score(assembled.matrix),
            matrix=assembled.matrix,
            vectors=assembled,
            degraded=vectors.degraded,
            outside=vectors.outside,
            rows=None if model.policy is None else model.parser.build_rows(part.columns or {}),
            explored=None if explore is None else explore.choose_rows(model.name, ids, part.columns),
        )
        origin = model.origin if part.arm is None else part.arm.origin
        times = ReadTimes(self.clock.now_us(), vectors.read_start, vectors.read_end, vectors.skew_us)
        record = make_record(scored, origin, times, input_texts(part.rows), events=own)
        if id(origin) not in self._constants:
            # With the origin, which keeps its identity taken.
            self._constants[id(origin)] = origin, ConstantColumns(origin, "entities")
        return scored, to_batch([record], self._constants[id(origin)][1])

    def _score_shadows(
        self,
        part: ScoringRequest,
        own: DecidedEvents,
        vectors: EventVectors,
        served: ScoredBatch,
        pending: PendingEvents,
    ) -> list[pa.RecordBatch]:
        """Return the log rows of the shadows of the arm; a shadow that fails is skipped and counted."""
        rows = []
        for arm in part.arm.shadows if part.arm is not None and not vectors.degraded else ():
            try:
                same = arm.has_same_vectors(part.model)
                read = vectors if same else self.reads.read(arm.model, part.columns or {}, own, pending)
                scored, record = self._score_part(part.for_arm(arm), own, read, serves=False)
            except SkewlessError as error:
                arm.counts.count_failure()
                self.metrics.shadow_skipped(arm.model.name, arm.model.version, "failed").inc(part.n)
                _log.warning("shadow_failed", model=arm.model.name, version=arm.model.version, error=str(error))
                continue
            arm.counts.count(scored, len(scored.ids))
            arm.counts.compare(served, scored)
            rows.append(record)
        return rows

    def _find_refused(self, model: ServedModel, vectors: EventVectors) -> dict[int, str]:
        """Return the rows that the model rejects, with the reasons."""
        spec = model.package.spec
        if spec.missing != "refuse":
            return {}
        refused = dict.fromkeys(vectors.corrupt.tolist(), "a feature row is corrupt in the online store")
        if vectors.outside is not None and spec.bounds == "refuse":
            refused |= dict.fromkeys(
                np.flatnonzero(vectors.outside.any(axis=1)).tolist(), "a feature is outside the model's bounds"
            )
        return refused

    def _counts_of(self, model: ServedModel) -> ModelCounts:
        key = model.name, model.version
        if key not in self._counts:
            self._counts[key] = ModelCounts(self.metrics, model)
        return self._counts[key]

    def close(self) -> None:
        """Close the models and the connection to the store."""
        self.models.close()
        self.reads.close()


def _in_order(rows: pa.Table, *, several: bool) -> pa.Table:
    """Return the log rows of several versions in the order of their events."""
    if not several:
        return rows
    seq = rows["event"].combine_chunks().field("seq").to_numpy()
    return rows.take(int64_array(np.argsort(seq, kind="stable")))
