"""Requests in flight, and groups of requests that are scored together and become rows of the prediction log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from skewless.contract.errors import SkewlessError
from skewless.contract.request import ParsedRows
from skewless.contract.status import BoolArray
from skewless.contract.vector import Matrix
from skewless.infra.online.service_vectors import ServiceVectors
from skewless.infra.otel.trace import Trace
from skewless.infra.packages.served_model import ServedModel
from skewless.infra.predictions.record import PredictionBatch
from skewless.serving.prediction.arm import Arm
from skewless.serving.prediction.feature_reads import StoredRows
from skewless.serving.prediction.input_texts import input_texts
from skewless.serving.prediction.routing import ScoringRequest
from skewless.serving.prediction.scored_batch import Extra, ScoredBatch, ScoredSlice, Scores

SliceCallback = Callable[[ScoredSlice | SkewlessError], None]
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


class Ticket:
    """A request that waits for its reply.

    Args:
        on_reply: called once, with the scores or an error.
        release: called before it, with the number of rows: their room is free, even if the reply fails.

    Attributes:
        is_open: no reply has been given.
        is_waiting: a reply is not in preparation either: no thread is scoring it, and no log write precedes its reply.
        n: number of rows.
    """

    __slots__ = ("_on_reply", "_release", "_timer", "is_open", "is_waiting", "n", "request", "started_at")

    def __init__(
        self, request: ScoringRequest, on_reply: SliceCallback, release: Callable[[int], None] | None = None
    ) -> None:
        self.request = request
        self.n = request.n
        self._release = release
        self.started_at = time.perf_counter()
        self.is_open = self.is_waiting = True
        self._on_reply = on_reply
        self._timer: asyncio.TimerHandle | None = None

    def set_timer(self, timer: asyncio.TimerHandle) -> None:
        """Attach the timer of the deadline, which the reply cancels."""
        self._timer = timer

    def settle(self, result: ScoredSlice | SkewlessError) -> bool:
        """Give the reply and return whether it was the first; later replies are dropped."""
        if not self.is_open:
            return False
        # Before the callback: whatever it does, no second reply can follow.
        self.is_open = self.is_waiting = False
        if self._timer is not None:
            self._timer.cancel()
        if self._release is not None:
            self._release(self.n)
        self._on_reply(result)
        return True


@dataclass(eq=False)
class Group:
    """Tickets of one model that are evaluated together, at one time.

    Args:
        t: evaluation time, microseconds, a multiple of a millisecond.
        extras: the further results that are requested.
        arm: role of the model under a traffic policy; None: the requests were not routed.
        stored: rows read for them and for the arm's shadows; None: not read yet.
        times: when they were read.
        degraded: whether a view did not answer, so that nulls are scored.
        traces: of the tickets that are traced; empty if tracing is off.

    Attributes:
        narrow: whether float64 inputs arrived as floats of fewer bits; equal for all tickets.
    """

    model: ServedModel
    t: int
    extras: tuple[str, ...]
    tickets: Sequence[Ticket]
    arm: Arm | None
    stored: StoredRows | None = None
    times: ReadTimes = _NOT_READ
    degraded: bool = False
    traces: Sequence[Trace] = ()

    def __post_init__(self) -> None:
        """Add up the rows."""
        self.narrow = bool(self.tickets) and self.tickets[0].request.narrow  # a group without open tickets is empty
        self.n = sum([ticket.n for ticket in self.tickets])
        self._rows: ParsedRows | None = None
        self._keys: list[bytes | None] | None = None

    @property
    def pending(self) -> Group:
        """Return the group without the tickets that have a reply by now."""
        if all(ticket.is_waiting for ticket in self.tickets):
            return self
        return replace(self, tickets=[ticket for ticket in self.tickets if ticket.is_waiting])

    @property
    def ticket_groups(self) -> list[Group]:
        """Return one group for each ticket."""
        return [replace(self, tickets=[ticket], traces=_traces_of([ticket])) for ticket in self.tickets]

    def for_arm(self, shadow: Arm) -> Group:
        """Return the group with the same rows for a shadow version."""
        return replace(self, model=shadow.model, extras=(), arm=shadow, traces=())

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

    def build_vectors(self, stored: StoredRows) -> ServiceVectors:
        """Return the vectors from values that were read for ``keys``."""
        values, reader = stored.values, self.model.reader
        rows = [None if name is None else values[name] for name in self.keys]
        status = reader.check_ages(stored.marker_status, self.t)
        return reader.vectors(self.keys, rows, status, self.t, self.parsed_rows)

    @property
    def vectors(self) -> Matrix:
        """Return the vectors that callers sent, concatenated."""
        parts = [ticket.request.vectors for ticket in self.tickets]
        vectors = [part for part in parts if part is not None]
        return vectors[0] if len(vectors) == 1 else np.concatenate(vectors)


VectorBuilder = Callable[[Group], ServiceVectors]


def group_tickets(tickets: Sequence[Ticket], t: int, *, traced: bool = False) -> list[Group]:
    """Return tickets grouped by model, arm, time and options.

    Args:
        t: time of requests without ``as_of``, microseconds.
        traced: whether some tickets may have a trace.
    """
    groups: dict[tuple[int, int, int, tuple[str, ...], bool], list[Ticket]] = {}
    for ticket in tickets:
        if ticket.is_waiting:
            request = ticket.request
            options = request.options
            evaluated_at = t if options.as_of is None else options.as_of
            # By identity, which is cheap; the tickets keep model and arm alive, so an id is not used twice.
            key = (id(request.model), id(request.arm), evaluated_at, options.extras, request.narrow)
            groups.setdefault(key, []).append(ticket)
    return [
        Group(
            members[0].request.model,
            *key[2:4],
            members,
            members[0].request.arm,
            traces=_traces_of(members) if traced else (),
        )
        for key, members in groups.items()
    ]


def combine_groups(groups: Sequence[Group]) -> list[tuple[Group, Sequence[Group]]]:
    """Return the groups whose versions build the same vectors together: one group of their tickets, and themselves."""
    parts: list[list[Group]] = []
    for group in groups:
        others = next((each for each in parts if _has_same_vectors(each[0], group)), None)
        if others is None:
            parts.append([group])
        else:
            others.append(group)
    return [(own[0] if len(own) == 1 else _merge_groups(own), own) for own in parts]


def _has_same_vectors(one: Group, other: Group) -> bool:
    # An arm compares versions of its own model only.
    if one.arm is None or one.model.name != other.model.name or one.t != other.t:
        return False
    return one.arm.has_same_vectors(other.model)


def _merge_groups(groups: Sequence[Group]) -> Group:
    first, tickets = groups[0], [ticket for group in groups for ticket in group.tickets]
    traces = [trace for group in groups for trace in group.traces]
    return Group(first.model, first.t, first.extras, tickets, first.arm, traces=traces)


def share_vectors(whole: Group, parts: Sequence[Group], stored: StoredRows) -> VectorBuilder:
    """Return a function that builds the vectors of a group: of all parts at once, when the first part needs them."""
    shared: dict[Group, ServiceVectors | None] = {}

    def build(group: Group) -> ServiceVectors:
        if len(parts) > 1 and not shared:
            try:
                vectors = whole.build_vectors(stored).split([part.n for part in parts])
            except Exception:  # noqa: BLE001 - an error that remains goes to the part that causes it
                vectors = [None] * len(parts)
            shared.update(zip(parts, vectors, strict=True))
        return shared.get(group) or group.build_vectors(stored)

    return build


def make_batch(
    group: Group,
    ids: Sequence[str],
    vectors: ServiceVectors | None,
    matrix: Matrix,
    scores: Scores,
    outside: BoolArray | None,
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
        outside=outside,
        narrow=group.narrow,
        explored=group.explore(ids),
        rows=group.policy_rows,
    )


def make_record(scored: ScoredBatch, group: Group) -> PredictionBatch:
    """Return the log rows of a scored batch of a group."""
    vectors, times = scored.vectors, group.times
    actions = scored.actions
    return PredictionBatch(
        origin=group.model.origin if group.arm is None else group.arm.origin,
        ids=scored.ids,
        t=scored.t,
        asked_at=times.requested_at,
        read_start=times.read_start,
        read_end=times.read_end,
        skew_us=times.skew_us,
        inputs=[text for ticket in group.tickets for text in input_texts(ticket.request.rows)],
        matrix=scored.matrix,
        scores=scored.scores,
        status=scored.status,
        versions=vectors.versions if vectors else {},
        applied=vectors.applied if vectors else {},
        watermarks=vectors.watermark if vectors else _NO_WATERMARKS,
        source="entities" if vectors else "vectors",
        narrow=scored.narrow,
        trace_ids=_trace_ids(group) if group.traces else (),
        actions=actions.taken,
        propensities=actions.propensities,
        reasons=actions.reasons,
        lists=actions.lists,
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
