"""Predictions to be logged: everything that replay needs to build the same vectors again (SEMANTICS 2.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.rows import Versions
from skewless.contract.status import Int64Array, StatusArray
from skewless.contract.traffic import Role
from skewless.contract.vector import Matrix
from skewless.infra.online.window_states import StateProgress

Source = Literal["entities", "vectors"]


@dataclass(frozen=True, kw_only=True)
class LoadColumns:
    """The columns of the log that are the same for all predictions of a loaded model.

    One object serves all records of the model in one role: the log gathers records by the object, not by what it says.

    Args:
        tolerance: accepted difference of the runtime's scores; 0: bit-equal.
        missing: the policy for a store that does not answer.
        views: name and hash of each view, in the order of the plan.
        role: in which it answered, or was scored besides.
        policy: number of the traffic policy that it had the role under; None: none decided.
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


class PredictionBatch(NamedTuple):
    """The predictions of one model version that were made at once, as arrays of ``n`` entries.

    Args:
        origin: what answered; the same object in all records of a loaded model.
        ids: names of the predictions.
        t: the time at which everything was evaluated, microseconds.
        asked_at: the clock when they were asked for; ``t`` to the millisecond, but for ``as_of`` requests.
        read_start: the clock when the oldest state that was used had been read.
        read_end: the clock after the store had answered.
        skew_us: measured distance between the clocks of store and server.
        inputs: per row, JSON text of what the caller sent: an object of keys and fields, or for a full vector
            a list of numbers (null: not finite; the vector says what).
        matrix: the vectors, float64, shape ``(n, n_features)``.
        scores: float64, shape ``(n,)``, or ``(n, k)`` of a model with k outputs.
        status: of what each view of the origin answered, shape ``(n, n_views)``.
        versions: per view, where each row came from.
        applied: per windowed view, up to where its states had been applied.
        watermarks: per view of the origin, up to when all that had arrived was in what was read; 0: unknown.
        source: whether keys were sent and looked up, or full vectors; these have no views.
        narrow: float64 fields or features came as floats of fewer bits, which the model's spec accepts.
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


def best_output(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return of each row the largest of its outputs, shape ``(n,)``: the one number that stands for the answer.

    >>> best_output(np.array([[0.1, 0.7, 0.2]])).tolist()
    [0.7]
    """
    return scores if scores.ndim == 1 else np.asarray(scores.max(axis=1))
