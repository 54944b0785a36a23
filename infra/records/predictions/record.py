"""Predictions to be logged, with everything that replay needs to rebuild their vectors (SEMANTICS 2.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.rows import Versions
from skewless.contract.status import BoolArray, Int64Array, StatusArray
from skewless.contract.traffic import Role
from skewless.contract.vector import Matrix
from skewless.infra.reads.online.state_reader import StateProgress

Source = Literal["entities", "vectors"]


@dataclass(frozen=True, kw_only=True)
class LoadColumns:
    """The columns of the log that are equal for all predictions of a loaded model.

    All records of the model in one role share one object: the writer groups records by its identity, not by its values.

    Args:
        tolerance: accepted difference of the runtime's scores; 0: bit-equal.
        missing: the policy for missing features.
        views: name and hash of each view, in the order of the plan.
        role: its role: it serves requests, or scores them as a shadow.
        policy: number of the traffic policy that gave it the role; None: no policy exists.
    """

    model: str
    version: str
    runtime_id: str
    tolerance: float
    plan_hash: str
    transform_hashes: tuple[str, ...]
    missing: str
    views: tuple[tuple[str, str], ...]
    role: Role = "champion"
    policy: int | None = None


@dataclass(frozen=True, kw_only=True)
class DecidedEvents:
    """The events that n decisions are about, as arrays of n entries (SEMANTICS 9).

    Args:
        stream: name of the decision stream.
        partition: log partition of the events.
        seq: their positions in it.
        event_ts: their event times, microseconds.
        t: the times for which the features were evaluated, microseconds.
        late: which came after newer event times.
    """

    stream: str
    partition: str
    seq: Int64Array
    event_ts: Int64Array
    t: Int64Array
    late: BoolArray

    def take(self, rows: Int64Array | BoolArray) -> DecidedEvents:
        """Return some of the events."""
        arrays = {name: getattr(self, name)[rows] for name in ("seq", "event_ts", "t", "late")}
        return DecidedEvents(stream=self.stream, partition=self.partition, **arrays)


Origins = Sequence[tuple[LoadColumns, int]]


class PredictionBatch(NamedTuple):
    """The predictions of one model in one call, as arrays of ``n`` entries.

    Args:
        origin: the columns of the loaded model; the same object in all records that are converted together.
        ids: prediction ids.
        t: the time for which everything was evaluated, microseconds; of decisions, that of the last one.
        asked_at: the clock at the request; ``t`` to the millisecond, except for ``as_of`` requests and decisions.
        read_start: the clock when the oldest state that was used had been read.
        read_end: the clock after the store's reply.
        skew_us: measured difference between the clocks of store and server.
        inputs: per row, JSON text of the caller's input: an object of keys and fields, or for a full vector
            a list of numbers (null: not finite; the vector has the value).
        matrix: the vectors, float64, shape ``(n, n_features)``.
        scores: float64, shape ``(n,)``, or ``(n, k)`` of a model with k outputs.
        status: statuses of the origin's views, shape ``(n, n_views)``.
        versions: per view, the log rows that were read.
        applied: per windowed view, the positions up to which its states had been applied.
        watermarks: per view of the origin, the watermark of the data that was read; 0: unknown.
        source: whether the caller sent keys to look up, or full vectors, which have no views.
        narrow: float64 fields or features came as narrower floats, which the model's spec accepts.
        trace_ids: per row, the trace of its request, 32 hexadecimal digits; empty: it is not traced. An empty sequence:
            none is.
        events: of decisions, their events; None: callers requested the predictions.
        actions: per row, the decision about it; None: there is none. An empty sequence: the model has no decisions.
        propensities: per row, the probability of its action before the choice of exploration. An empty sequence: the
            model does not explore, or its actions are not taken.
        reasons: per row, the codes of the policy's reasons. An empty sequence: the model has no policy.
        lists: number of the version of each list that the policy read.
        origins: the columns of each version that scored rows, which have the views of ``origin``, and the number of its
            rows, in their order. An empty sequence: ``origin`` scored all.
    """

    origin: LoadColumns
    ids: Sequence[str]
    t: int
    asked_at: int
    read_start: int
    read_end: int
    skew_us: int
    inputs: Sequence[bytes]
    matrix: Matrix
    scores: npt.NDArray[np.float64]
    status: StatusArray
    versions: Mapping[str, Versions]
    applied: Mapping[str, StateProgress]
    watermarks: Int64Array
    source: Source = "entities"
    narrow: bool = False
    trace_ids: Sequence[str] = ()
    events: DecidedEvents | None = None
    actions: Sequence[str | None] = ()
    propensities: Sequence[float] = ()
    reasons: Sequence[Sequence[str]] = ()
    lists: Mapping[str, int] = {}
    origins: Origins = ()


def largest_output(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the largest output of each row, shape ``(n,)``: the score that is logged and compared.

    >>> largest_output(np.array([[0.1, 0.7, 0.2]])).tolist()
    [0.7]
    """
    return scores if scores.ndim == 1 else np.asarray(scores.max(axis=1))
