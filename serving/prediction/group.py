"""Groups of requests that are scored together as one batch and become rows of the prediction log."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from skewless.contract.request import ParsedRows
from skewless.contract.status import BoolArray
from skewless.contract.vector import Matrix
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.platform.telemetry.trace import Trace
from skewless.infra.reads.online.service_vectors import ServiceVectors
from skewless.infra.records.predictions.record import DecidedEvents, LoadColumns, Origins, PredictionBatch
from skewless.serving.prediction.arm import Arm
from skewless.serving.prediction.feature_reads import StoredRows
from skewless.serving.prediction.input_texts import input_texts
from skewless.serving.prediction.scored_batch import Extra, ScoredBatch, Scores
from skewless.serving.prediction.ticket import Ticket

_NO_WATERMARKS = np.empty(0, dtype=np.int64)


class ReadTimes(NamedTuple):
    """When the rows of a batch were requested and read, microseconds.

    Args:
        requested_at: time when the batch began; equals ``t``, except in requests with ``as_of``.
        read_start: time before the oldest value was read.
        read_end: time after the last value was read.
        skew_us: measured difference between the clocks of the store and the server.
    """

    requested_at: int
    read_start: int
    read_end: int
    skew_us: int


_NOT_READ = ReadTimes(0, 0, 0, 0)


class GroupPart(NamedTuple):
    """The tickets of a group that one version serves, and their rows in the group.

    Args:
        arm: role of the model under a traffic policy; None: the requests were not routed.
        start: first row.
        stop: end of the rows, exclusive.
    """

    model: ServedModel
    arm: Arm | None
    tickets: Sequence[Ticket]
    start: int
    stop: int

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    @property
    def origin(self) -> LoadColumns:
        """Columns of the prediction log that identify the version and its role."""
        return self.model.origin if self.arm is None else self.arm.origin


@dataclass(eq=False)
class Group:
    """Tickets that are evaluated together, at one time, as one batch.

    Args:
        parts: the tickets by version, at least one; the versions differ only in their scores.
        t: evaluation time, microseconds, a multiple of a millisecond.
        extras: the further results that are requested; none if there are several versions.
        stored: rows read for them and for the arms' shadows; None: not read yet, or the store did not answer.
        times: when they were read.
        degraded: whether a view did not answer, so that nulls are scored.
        traces: of the tickets that are traced; empty if tracing is off.

    Attributes:
        model: the first version; all but the scores is equal for all versions.
        narrow: whether float64 inputs arrived as floats of fewer bits; equal for all tickets.
    """

    parts: Sequence[GroupPart]
    t: int
    extras: tuple[str, ...]
    stored: StoredRows | None = None
    times: ReadTimes = _NOT_READ
    degraded: bool = False
    traces: Sequence[Trace] = ()

    def __post_init__(self) -> None:
        """Collect the tickets."""
        parts = self.parts
        self.model = parts[0].model
        self.tickets = parts[0].tickets if len(parts) == 1 else [ticket for part in parts for ticket in part.tickets]
        self.narrow = self.tickets[0].request.narrow
        self.n = parts[-1].stop
        self._rows: ParsedRows | None = None
        self._keys: list[bytes | None] | None = None

    @property
    def shadows(self) -> Sequence[Arm]:
        """The versions that score the rows again; equal for all parts."""
        arm = self.parts[0].arm
        return () if arm is None else arm.shadows

    @property
    def pending(self) -> Group | None:
        """The group without the tickets that have a reply by now; None: all have one."""
        if all(ticket.is_waiting for ticket in self.tickets):
            return self
        members = [[ticket for ticket in part.tickets if ticket.is_waiting] for part in self.parts]
        parts = _make_parts([tickets for tickets in members if tickets])
        return replace(self, parts=parts) if parts else None

    @property
    def smaller_groups(self) -> list[Group]:
        """One group for each version; of a single version, one for each ticket."""
        if len(self.parts) > 1:
            members = [part.tickets for part in self.parts]
        else:
            members = [[ticket] for ticket in self.tickets]
        return [replace(self, parts=_make_parts([each]), traces=_traces_of(each)) for each in members]

    def for_arm(self, shadow: Arm) -> Group:
        """Return the group with the same rows for a shadow version."""
        part = GroupPart(shadow.model, shadow, self.tickets, 0, self.n)
        return replace(self, parts=[part], extras=(), traces=())

    def add_stage(self, stage: str, start_s: float) -> None:
        """Add a stage that ends now to the traces, if there are any; ``start_s`` is a ``time.perf_counter``."""
        for trace in self.traces:
            trace.add(stage, start_s, time.perf_counter())

    def claim(self) -> None:
        """Mark the tickets as being replied to, so that a deadline does not start a second evaluation."""
        for ticket in self.tickets:
            ticket.is_waiting = False

    # Not cached_property: until Python 3.12 it takes a lock, which is longer than the rest.
    @property
    def parsed_rows(self) -> ParsedRows:
        """Return the rows in the form that readers and transforms use."""
        if self._rows is None:
            columns = _end_to_end([ticket.request.columns or {} for ticket in self.tickets])
            self._rows = self.model.parser.build_rows(columns)
        return self._rows

    def explore(self, ids: Sequence[str]) -> list[bool] | None:
        """Return which rows explore; None: the model does not. Vectors have no sticky values, so they do not."""
        explore = self.model.package.spec.explore
        if explore is None:
            return None
        columns = [ticket.request.columns for ticket in self.tickets]
        given = None if None in columns else _end_to_end([column or {} for column in columns])
        return explore.choose_rows(self.model.name, ids, given)

    @property
    def policy_rows(self) -> ParsedRows | None:
        """The rows for the policy of the model; None: it has none, or callers sent vectors."""
        if self.model.policy is None or any(ticket.request.columns is None for ticket in self.tickets):
            return None
        return self.parsed_rows

    @property
    def keys(self) -> list[bytes | None]:
        """Return the keys to read from the store; None: nothing to read."""
        if self._keys is None:
            self._keys = self.model.reader.names(self.parsed_rows.keys, self.n)
        return self._keys

    def build_vectors(self) -> ServiceVectors:
        """Return the vectors from the values that were read for ``keys``; nulls if the store did not answer."""
        reader = self.model.reader
        if self.stored is None:
            return reader.unavailable(self.t, self.parsed_rows)
        values = self.stored.values
        rows = [None if name is None else values[name] for name in self.keys]
        status = reader.check_ages(self.stored.marker_status, self.t)
        return reader.vectors(self.keys, rows, status, self.t, self.parsed_rows)

    def find_outside(self, matrix: Matrix) -> BoolArray | None:
        """Return where values are outside the model's bounds, as ``BoundsCheck.outside``; None: no bounds."""
        bounds = self.model.bounds
        if bounds is None:
            return None
        return bounds.find_outside(matrix, None if self.tickets[0].request.columns is None else self.parsed_rows)

    @property
    def vectors(self) -> Matrix:
        """Return the vectors that callers sent, concatenated."""
        parts = [ticket.request.vectors for ticket in self.tickets]
        vectors = [part for part in parts if part is not None]
        return vectors[0] if len(vectors) == 1 else np.concatenate(vectors)


def group_tickets(tickets: Sequence[Ticket], t: int, *, traced: bool = False) -> list[Group]:
    """Return tickets grouped by model, arm, time and options; versions that differ only in their scores are together.

    Args:
        t: time of requests without ``as_of``, microseconds.
        traced: whether some tickets may have a trace.
    """
    by_version: dict[tuple[int, int, int, tuple[str, ...], bool], list[Ticket]] = {}
    for ticket in tickets:
        if ticket.is_waiting:
            request = ticket.request
            options = request.options
            evaluated_at = t if options.as_of is None else options.as_of
            # By identity, which is cheap; the tickets keep model and arm alive, so an id is not used twice.
            key = (id(request.model), id(request.arm), evaluated_at, options.extras, request.narrow)
            by_version.setdefault(key, []).append(ticket)
    groups: dict[tuple[object, int, tuple[str, ...], bool], list[list[Ticket]]] = {}
    for key, members in by_version.items():
        arm, extras = members[0].request.arm, key[3]
        # Extras have another shape for each version.
        own = key[:2] if arm is None or extras else id(arm.lead)
        groups.setdefault((own, *key[2:]), []).append(members)
    return [
        Group(
            _make_parts(parts),
            evaluated_at,
            extras,
            traces=_traces_of([ticket for members in parts for ticket in members]) if traced else (),
        )
        for (_, evaluated_at, extras, _), parts in groups.items()
    ]


def _make_parts(members: Sequence[Sequence[Ticket]]) -> list[GroupPart]:
    """Return one part for the tickets of each version."""
    parts, stop = list[GroupPart](), 0
    for tickets in members:
        start, request = stop, tickets[0].request
        stop += sum([ticket.n for ticket in tickets])
        parts.append(GroupPart(request.model, request.arm, tickets, start, stop))
    return parts


def make_batch(
    group: Group,
    ids: Sequence[str],
    vectors: ServiceVectors | None,
    matrix: Matrix,
    scores: Scores,
    extras: Mapping[str, Extra] = MappingProxyType({}),
) -> ScoredBatch:
    """Return the scored batch of a group; arguments as those of ``ScoredBatch``."""
    return ScoredBatch(
        model=group.model,
        ids=ids,
        t=group.t,
        scores=scores,
        matrix=matrix,
        vectors=vectors,
        degraded=group.degraded,
        extras=extras,
        outside=group.find_outside(matrix),
        narrow=group.narrow,
        explored=group.explore(ids),
        rows=group.policy_rows,
        others=[part.model for part in group.parts[1:]],
    )


def make_group_record(scored: ScoredBatch, group: Group) -> PredictionBatch:
    """Return the log rows of a scored batch of a group."""
    arm = group.parts[0].arm
    return make_record(
        scored,
        group.model.origin if arm is None else arm.lead.origin,
        group.times,
        [text for ticket in group.tickets for text in input_texts(ticket.request.rows)],
        trace_ids=_trace_ids(group) if group.traces else (),
        origins=[(part.origin, part.n) for part in group.parts],
    )


def make_record(
    scored: ScoredBatch,
    origin: LoadColumns,
    times: ReadTimes,
    inputs: Sequence[bytes],
    *,
    trace_ids: Sequence[str] = (),
    events: DecidedEvents | None = None,
    origins: Origins = (),
) -> PredictionBatch:
    """Return the log rows of a scored batch; the other arguments as those of ``PredictionBatch``."""
    vectors, actions = scored.vectors, scored.actions
    return PredictionBatch(
        origin=origin,
        ids=scored.ids,
        t=scored.t,
        asked_at=times.requested_at,
        read_start=times.read_start,
        read_end=times.read_end,
        skew_us=times.skew_us,
        inputs=inputs,
        matrix=scored.matrix,
        scores=scored.scores,
        status=scored.status,
        versions=vectors.versions if vectors else {},
        applied=vectors.applied if vectors else {},
        watermarks=vectors.watermark if vectors else _NO_WATERMARKS,
        source="entities" if vectors else "vectors",
        narrow=scored.narrow,
        trace_ids=trace_ids,
        events=events,
        actions=actions.taken,
        propensities=actions.propensities,
        reasons=actions.reasons,
        lists=actions.lists,
        origins=origins,
    )


def _traces_of(tickets: Sequence[Ticket]) -> list[Trace]:
    return [ticket.request.trace for ticket in tickets if ticket.request.trace is not None]


def _trace_ids(group: Group) -> list[str]:
    """Return the id of the trace of each row; empty: its request is not traced."""
    ids: list[str] = []
    for ticket in group.tickets:
        trace = ticket.request.trace
        ids += ["" if trace is None else trace.trace_id] * ticket.n
    return ids


def _end_to_end(parts: Sequence[Mapping[str, Sequence[Any]]]) -> Mapping[str, Sequence[Any]]:
    """Return the columns of all parts, concatenated."""
    if len(parts) == 1:
        return parts[0]
    return {name: list(chain.from_iterable(part[name] for part in parts)) for name in parts[0]}
