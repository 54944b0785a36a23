"""What a model answered: the rows that were scored at once, and the part of them that one request gets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.spec import LogPolicy
from skewless.contract.status import BoolArray, Int64Array, Status, StatusArray
from skewless.contract.vector import Matrix
from skewless.infra.online.service_vectors import ServiceVectors
from skewless.infra.packages.served_model import ServedModel

_SECOND_US = 1e6
Scores = npt.NDArray[np.float64]


@dataclass(kw_only=True, eq=False)
class ScoredBatch:
    """The rows of one model that were evaluated at one time, together.

    Args:
        ids: names of the predictions in the log.
        t: the one time at which everything was evaluated, microseconds.
        scores: float64, shape ``(n,)``, or ``(n, k)`` for k outputs.
        matrix: what the model saw, float64, shape ``(n, n_features)``; NaN is missing.
        looked_up: what the views answered; None: the callers sent whole vectors.
        degraded: a view did not answer and nulls were scored.
        contributions: shape ``(n, n_features + 1)``, the bias last, or ``(n, k, n_features + 1)``; None: not asked for.
        outside: where values lie outside the model's bounds, shape ``(n, n_bounds)`` (``BoundsCheck.names``); None:
            nowhere.
        narrow: float64 fields or features came as floats of fewer bits, which the model's spec accepts.
    """

    model: ServedModel
    ids: Sequence[str]
    t: int
    scores: npt.NDArray[np.float64]
    matrix: Matrix
    looked_up: ServiceVectors | None
    degraded: bool
    contributions: npt.NDArray[np.float64] | None = None
    outside: BoolArray | None = None
    narrow: bool = False

    @cached_property
    def status(self) -> StatusArray:
        """Status of what each view of the plan (``all_views``) answered, shape ``(n, n_views)``; or ``(n, 0)``."""
        return np.empty((len(self.ids), 0), dtype=np.uint8) if self.looked_up is None else self.looked_up.status

    @cached_property
    def found(self) -> BoolArray:
        """Where a row or state was found at all, shape ``(n, n_views)``."""
        return np.asarray((self.status != Status.NOT_FOUND) & (self.status != Status.UNAVAILABLE))

    @cached_property
    def ages_us(self) -> Int64Array:
        """How old what was found is, microseconds, shape ``(n, n_views)``; meaningless where nothing was found."""
        if self.looked_up is None:
            return np.empty((len(self.ids), 0), dtype=np.int64)
        return np.asarray(self.t - self.looked_up.event_ts)

    @cached_property
    def stale(self) -> BoolArray:
        """Where a row, or all that its view holds, is older than the view allows, shape ``(n, n_views)``.

        The value was kept. A view that nobody updates is stale even where it holds nothing of an entity.
        """
        if self.looked_up is None:
            return self.older(0)
        limit, available = self.model.freshness_us, self.status != Status.UNAVAILABLE
        frozen = (self.t - self.looked_up.watermark > limit) & (limit > 0)
        return np.asarray(self.older(limit) | (frozen & available))

    def older(self, limit_us: Int64Array | int) -> BoolArray:
        """Return where a row is older than a limit; 0: no limit."""
        return np.asarray((self.ages_us > limit_us) & self.found & (np.asarray(limit_us) > 0))

    @cached_property
    def watermark_ages_s(self) -> npt.NDArray[np.float64]:
        """How long ago each view's watermark was, seconds, shape ``(n_views,)``; NaN: unknown."""
        if self.looked_up is None:
            return np.empty(0, dtype=np.float64)
        watermark = self.looked_up.watermark
        return np.where(watermark > 0, np.maximum(self.t - watermark, 0) / _SECOND_US, np.nan)


class ScoredSlice(NamedTuple):
    """The part of what was scored at once that answers one request: the rows ``start`` to ``stop``, end exclusive."""

    scored: ScoredBatch
    start: int
    stop: int
    max_age_us: int | None = None

    @property
    def model(self) -> ServedModel:
        """What answered."""
        return self.scored.model

    @property
    def n(self) -> int:
        """Return the number of rows."""
        return self.stop - self.start

    @property
    def t(self) -> int:
        """The one time at which everything was evaluated, microseconds."""
        return self.scored.t

    @property
    def degraded(self) -> bool:
        """Whether a view did not answer and nulls were scored."""
        return self.scored.degraded

    @property
    def narrow(self) -> bool:
        """Whether floats came with fewer bits than the model's."""
        return self.scored.narrow

    @property
    def log(self) -> LogPolicy:
        """Whether the log row is durable (``required``) or on its way (``best_effort``)."""
        return self.scored.model.package.spec.log

    @property
    def ids(self) -> Sequence[str]:
        """Names of the predictions in the log."""
        return self.scored.ids[self.start : self.stop]

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """Scores, float64, shape ``(n,)``, or ``(n, k)`` for k outputs."""
        return self.scored.scores[self.start : self.stop]

    @property
    def decisions(self) -> Sequence[str | None] | None:
        """What the scores mean by the model's spec, or the likeliest classes; None: nothing."""
        spec = self.scored.model.package.spec
        if spec.classes:
            return likeliest(spec.classes, self.scores)
        return decide(spec.decisions, self.scores) if spec.decisions else None

    @property
    def matrix(self) -> Matrix:
        """What the model saw, float64, shape ``(n, n_features)``; NaN is missing."""
        return self.scored.matrix[self.start : self.stop]

    @property
    def contributions(self) -> npt.NDArray[np.float64] | None:
        """What each feature added to the margin, the bias last; None: not asked for."""
        found = self.scored.contributions
        return None if found is None else found[self.start : self.stop]

    @property
    def out_of_bounds(self) -> list[list[str]] | None:
        """Names of what lies outside the model's bounds, by row; None: nothing of what was scored together does."""
        bounds, outside = self.model.bounds, self.scored.outside
        if bounds is None or outside is None:
            return None
        return [
            [name for name, broken in zip(bounds.names, row, strict=True) if broken]
            for row in outside[self.start : self.stop].tolist()
        ]

    @property
    def status(self) -> StatusArray:
        """Status of what each view answered, shape ``(n, n_views)``."""
        return self.scored.status[self.start : self.stop]

    @property
    def ages_s(self) -> npt.NDArray[np.float64]:
        """Ages in seconds, shape ``(n, n_views)``, NaN where nothing was found."""
        ages = self.scored.ages_us[self.start : self.stop] / _SECOND_US
        return np.where(self.scored.found[self.start : self.stop], ages, np.nan)

    @property
    def stale(self) -> BoolArray:
        """Where a row is older than the caller accepts, or else than its view's limit, shape ``(n, n_views)``."""
        part = slice(self.start, self.stop)
        return (self.scored.stale if self.max_age_us is None else self.scored.older(self.max_age_us))[part]


def decide(decisions: Mapping[str, float], scores: Scores) -> list[str | None]:
    """Return per score the last decision whose lowest score it reaches; None where it reaches none.

    Args:
        decisions: name -> lowest score, rising, as ``ModelSpec`` keeps them.
        scores: ``(n,)`` float64; NaN reaches nothing.

    >>> decide({"approve": 0.0, "review": 0.5, "decline": 0.9}, np.array([0.5, 0.95, -1.0]))
    ['review', 'decline', None]
    """
    lowest = list(decisions.values())
    names = [None, *decisions]
    # Not numpy's searchsorted: for one row it costs ten times as much.
    return [names[bisect_right(lowest, score)] if score == score else None for score in scores.tolist()]  # noqa: PLR0124 - NaN


def likeliest(classes: Sequence[str], scores: Scores) -> list[str]:
    """Return per row the class with the largest score, the first of equal ones.

    Args:
        classes: names of the columns.
        scores: ``(n, k)`` float64.

    >>> likeliest(("cat", "dog"), np.array([[0.5, 0.5], [0.1, 0.9]]))
    ['cat', 'dog']
    """
    return [classes[column] for column in scores.argmax(axis=1).tolist()]
