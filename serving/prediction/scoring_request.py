"""What a request asks of one model, parsed; no transport is seen from here on."""

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
    """How a request wants to be answered.

    Args:
        as_of: the time at which everything is evaluated, microseconds; None: now.
        max_age_us: rows older than this count as stale, whatever their view says; None: as the view says.
        deadline: when the answer is no use any more, on the event loop's clock; None: it always is.
        contributions: what each feature added to the margin is wanted too.
    """

    as_of: int | None = None
    max_age_us: int | None = None
    deadline: float | None = None
    contributions: bool = False


NO_OPTIONS = Options()


class ScoringRequest(NamedTuple):
    """One request of n rows to one model: entities, whose features are looked up, or whole vectors.

    Args:
        model: what answers.
        n: number of rows.
        rows: each as it came, plain JSON values; the prediction log keeps it.
        columns: per join key and request field, n values in the plan's types; None where vectors came.
        vectors: float64, C-contiguous, shape ``(n, n_features)``; None where entities came.
        options: how it wants to be answered.
        routing: says which versions answer which of its entities; None: ``model`` answers all.
        arm: what ``model`` answers as; None: it was not routed.
        narrow: a float64 of the model came as a float of fewer bits, which its spec accepts.
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
