"""A parsed request to one model, independent of its transport."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from skewless.contract.vector import Matrix
from skewless.infra.packages.served_model import ServedModel
from skewless.serving.prediction.arm import Arm
from skewless.serving.prediction.routing import Routing


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of a request.

    Args:
        as_of: evaluation time, microseconds; None: now.
        max_age_us: rows older than this are stale, whatever their view allows; None: the view's limit applies.
        deadline: time at which the reply becomes useless, on the event loop's clock; None: no deadline.
        contributions: whether to return each feature's contribution to the margin.
    """

    as_of: int | None = None
    max_age_us: int | None = None
    deadline: float | None = None
    contributions: bool = False


NO_OPTIONS = Options()


class ScoringRequest(NamedTuple):
    """One request of n rows to one model: entity keys, whose features are read from the store, or complete vectors.

    Args:
        model: the version that scores.
        n: number of rows.
        rows: each as received, plain JSON values, for the prediction log.
        columns: n values, in the plan's types, for each join key and request feature; None: the request has vectors.
        vectors: float64, C-contiguous, shape ``(n, n_features)``; None: the request has entity keys.
        options: options of the request.
        routing: distributes entities over versions; None: ``model`` scores all rows.
        arm: role of ``model`` under a traffic policy; None: the request was not routed.
        narrow: whether a float64 input arrived as a float of fewer bits, which the spec accepts.
    """

    model: ServedModel
    n: int
    rows: Sequence[object]
    columns: Mapping[str, Sequence[Any]] | None = None
    vectors: Matrix | None = None
    options: Options = NO_OPTIONS
    routing: Routing | None = None
    arm: Arm | None = None
    narrow: bool = False
