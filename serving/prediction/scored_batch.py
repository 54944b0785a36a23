"""Results of scoring: a batch of rows that were scored together, and the slice of it that belongs to one request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.request import ParsedRows
from skewless.contract.spec import LogPolicy
from skewless.contract.status import BoolArray, Int64Array, Status, StatusArray
from skewless.contract.vector import Matrix
from skewless.infra.models.packages.served_model import RowActions, ServedModel
from skewless.infra.models.runtimes.port import Runtime, find_leaves
from skewless.infra.reads.online.service_vectors import ServiceVectors

_SECOND_US = 1e6
_NOT_FOUND, _UNAVAILABLE = int(Status.NOT_FOUND), int(Status.UNAVAILABLE)  # numpy compares members of enums slowly
Scores = npt.NDArray[np.float64]
Extra = npt.NDArray[np.float64] | npt.NDArray[np.int32]
EXTRAS: Mapping[str, Callable[[Runtime, Matrix], Extra]] = {
    "contributions": lambda runtime, matrix: runtime.contributions(matrix),
    "leaves": find_leaves,
}
"""Results that a request may ask for in addition to scores, by the name of request fields, outputs and reply fields.

contributions: of each feature to the margin, ``(n, n_features + 1)``, the bias last, or ``(n, k, n_features + 1)``.
leaves: the leaf of each tree, ``(n, n_trees)`` int32.
"""


@dataclass(kw_only=True, eq=False)
class ScoredBatch:
    """Rows of one model that were evaluated at one time, together.

    Args:
        model: the version that scored the first rows.
        ids: prediction ids in the log.
        t: evaluation time of all rows, microseconds.
        scores: float64, shape ``(n,)``, or ``(n, k)`` for k outputs.
        matrix: the model's input, float64, shape ``(n, n_features)``; NaN is missing.
        vectors: values read from the views; None: the callers sent vectors.
        degraded: a view did not answer and nulls were scored.
        extras: the further results that were requested, by name: see ``EXTRAS``.
        outside: where values are outside the model's bounds, shape ``(n, n_bounds)`` (``BoundsCheck.names``); None:
            nowhere.
        narrow: float64 inputs arrived as floats of fewer bits, which the model's spec accepts.
        explored: which rows explore; None: the model does not, or its actions are not taken.
        rows: keys and request fields, for a policy; None: the model has none, or the caller sent vectors.
        others: the versions that scored the rows after them, which treat all but the scores as ``model`` does.

    Attributes:
        texts: what replies render once for all requests of the batch; None: nothing yet.
    """

    model: ServedModel
    ids: Sequence[str]
    t: int
    scores: npt.NDArray[np.float64]
    matrix: Matrix
    vectors: ServiceVectors | None
    degraded: bool
    extras: Mapping[str, Extra] = field(default_factory=dict)
    outside: BoolArray | None = None
    narrow: bool = False
    explored: Sequence[bool] | None = None
    rows: ParsedRows | None = None
    others: Sequence[ServedModel] = ()
    texts: Sequence[str] | None = field(default=None, init=False)
    _actions: RowActions | None = field(default=None, init=False)

    @property
    def actions(self) -> RowActions:
        """Return the action about each row, exploration included."""
        if self._actions is None:
            self._actions = self.model.act(self.scores, self.matrix, self.rows, self.explored, self.model.lists)
        return self._actions

    @property
    def status(self) -> StatusArray:
        """Status per row and view of the plan (``all_views``), shape ``(n, n_views)``; ``(n, 0)`` for vectors."""
        return np.empty((len(self.ids), 0), dtype=np.uint8) if self.vectors is None else self.vectors.status

    @cached_property
    def row_mask(self) -> BoolArray:
        """Where a row or state exists, shape ``(n, n_views)``."""
        return np.asarray((self.status != _NOT_FOUND) & (self.status != _UNAVAILABLE))

    @cached_property
    def ages_us(self) -> Int64Array:
        """Age of each row, microseconds, shape ``(n, n_views)``; undefined where no row exists."""
        if self.vectors is None:
            return np.empty((len(self.ids), 0), dtype=np.int64)
        return np.asarray(self.t - self.vectors.event_ts)

    @cached_property
    def stale(self) -> BoolArray:
        """Where a row or its view's watermark is older than the view allows, shape ``(n, n_views)``.

        The model still scored the value. A view that nothing updates is stale even for entities without a row.
        """
        if self.vectors is None:
            return self.older_than(0)
        limit = self.model.freshness_us
        frozen = (self.t - self.vectors.watermark > limit) & (limit > 0)
        older = self.older_than(limit)
        return older | (frozen & (self.status != _UNAVAILABLE)) if frozen.any() else older

    def older_than(self, limit_us: Int64Array | int) -> BoolArray:
        """Return where a row is older than a limit, microseconds; 0: no limit."""
        return np.asarray((self.ages_us > limit_us) & self.row_mask & (np.asarray(limit_us) > 0))

    @cached_property
    def watermark_ages_s(self) -> npt.NDArray[np.float64]:
        """Age of each view's watermark, seconds, shape ``(n_views,)``; NaN: unknown."""
        if self.vectors is None:
            return np.empty(0, dtype=np.float64)
        watermark = self.vectors.watermark
        return np.where(watermark > 0, np.maximum(self.t - watermark, 0) / _SECOND_US, np.nan)


class ScoredSlice(NamedTuple):
    """Rows ``start`` to ``stop``, end exclusive, of a scored batch: the scores of one request.

    Args:
        part: index of the version that scored them: 0 is ``scored.model``, 1 the first of the others.
    """

    scored: ScoredBatch
    start: int
    stop: int
    max_age_us: int | None = None
    part: int = 0

    def __repr__(self) -> str:
        """Return a short text: asyncio writes the result of a task as text, and a batch has thousands of values."""
        return f"ScoredSlice(start={self.start}, stop={self.stop})"

    @property
    def model(self) -> ServedModel:
        """Model version that scored the rows."""
        return self.scored.others[self.part - 1] if self.part else self.scored.model

    @property
    def n(self) -> int:
        """Return the number of rows."""
        return self.stop - self.start

    @property
    def t(self) -> int:
        """Evaluation time of all rows, microseconds."""
        return self.scored.t

    @property
    def degraded(self) -> bool:
        """Whether a view did not answer and nulls were scored."""
        return self.scored.degraded

    @property
    def narrow(self) -> bool:
        """Whether float64 inputs arrived as floats of fewer bits."""
        return self.scored.narrow

    @property
    def log(self) -> LogPolicy:
        """Log policy of the model: the log row is durable (``required``), or will be written (``best_effort``)."""
        return self.scored.model.package.spec.log

    @property
    def ids(self) -> Sequence[str]:
        """Prediction ids in the log."""
        return self.scored.ids[self.start : self.stop]

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """Scores, float64, shape ``(n,)``, or ``(n, k)`` for k outputs."""
        return self.scored.scores[self.start : self.stop]

    @property
    def decisions(self) -> Sequence[str | None] | None:
        """Decision of each row by the model's spec, or its most likely class; None: the model has neither."""
        actions = self.scored.actions.taken
        return actions[self.start : self.stop] if actions else None

    @property
    def reasons(self) -> Sequence[tuple[str, ...]] | None:
        """Codes of the policy's reasons for each row; None: the model has no policy."""
        reasons = self.scored.actions.reasons
        return reasons[self.start : self.stop] if reasons else None

    @property
    def explored(self) -> Sequence[bool] | None:
        """Which rows explore; None: none can."""
        return None if self.scored.explored is None else self.scored.explored[self.start : self.stop]

    @property
    def matrix(self) -> Matrix:
        """The model's input, float64, shape ``(n, n_features)``; NaN is missing."""
        return self.scored.matrix[self.start : self.stop]

    def extra_values(self, name: str) -> Extra | None:
        """Return a further result, see ``EXTRAS``; None: not requested."""
        values = self.scored.extras.get(name)
        return None if values is None else values[self.start : self.stop]

    @property
    def out_of_bounds(self) -> list[list[str]] | None:
        """Names of inputs outside the model's bounds, by row; None: no value of the batch is outside."""
        bounds, outside = self.model.bounds, self.scored.outside
        if bounds is None or outside is None:
            return None
        return [
            [name for name, is_outside in zip(bounds.names, row, strict=True) if is_outside]
            for row in outside[self.start : self.stop].tolist()
        ]

    @property
    def status(self) -> StatusArray:
        """Status of each row in each view, shape ``(n, n_views)``."""
        return self.scored.status[self.start : self.stop]

    @property
    def ages_s(self) -> npt.NDArray[np.float64]:
        """Ages in seconds, shape ``(n, n_views)``, NaN where no row exists."""
        ages = self.scored.ages_us[self.start : self.stop] / _SECOND_US
        return np.where(self.scored.row_mask[self.start : self.stop], ages, np.nan)

    @property
    def stale(self) -> BoolArray:
        """Where a row is older than the request accepts, or without such a limit, than its view allows."""
        rows = slice(self.start, self.stop)
        return (self.scored.stale if self.max_age_us is None else self.scored.older_than(self.max_age_us))[rows]
