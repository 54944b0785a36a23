"""The drift report of a model version for one time window, as data and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from skewless.contract.clock import from_us
from skewless.contract.lifecycle import Watch
from skewless.contract.render import count_text
from skewless.validation.drift.verdicts import ColumnDrift

DriftVerdict = Literal["drifted", "steady", "too_few_rows"]
_MOST_NAMES = 5


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """The drift of one model version in one window, relative to its training data.

    Args:
        since_us, until_us: the window, UTC microseconds, end exclusive.
        rows: predictions in the window.
        watch: the limits.
        features: drift of each feature, in the order of the model.
        score: drift of the score; None: the package has no profile of it.
        label: drift of the labels known by now; None: there are none, or the package has no profile of them.
    """

    model: str
    version: str
    since_us: int
    until_us: int
    rows: int
    watch: Watch
    features: Sequence[ColumnDrift]
    score: ColumnDrift | None = None
    label: ColumnDrift | None = None

    @property
    def drifted(self) -> list[str]:
        """Return the features that have drifted, the largest drift first."""
        columns = [column for column in self.features if column.drifted]
        return [column.name for column in sorted(columns, key=lambda column: -column.distances["psi"])]

    @property
    def share(self) -> float:
        """Return the share of the features that have drifted."""
        return len(self.drifted) / len(self.features) if self.features else 0.0

    @property
    def verdict(self) -> DriftVerdict:
        """Return the verdict: a model has drifted if a large enough share of its features has."""
        if self.rows < self.watch.least_rows:
            return "too_few_rows"
        # Features only: score and label have an alert of their own.
        return "drifted" if self.share >= self.watch.share else "steady"

    @property
    def moved(self) -> list[str]:
        """Return the names of score and label, if they have drifted."""
        return [column.name for column in (self.score, self.label) if column is not None and column.drifted]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "model": self.model,
            "version": self.version,
            "since": from_us(self.since_us).isoformat(),
            "until": from_us(self.until_us).isoformat(),
            "since_us": self.since_us,
            "until_us": self.until_us,
            "rows": self.rows,
            "verdict": self.verdict,
            "share": self.share,
            "limit_share": self.watch.share,
            "drifted": self.drifted,
            "moved": self.moved,
            "features": [column.as_dict() for column in self.features],
            "score": None if self.score is None else self.score.as_dict(),
            "label": None if self.label is None else self.label.as_dict(),
        }

    def sentence(self) -> str:
        """Return the verdict as a sentence."""
        if self.verdict == "too_few_rows":
            return f"{count_text(self.rows, 'prediction')}: drift needs {self.watch.least_rows:,}"
        names = ", ".join(self.drifted[:_MOST_NAMES]) + (", ..." if len(self.drifted) > _MOST_NAMES else "")
        text = f"{len(self.drifted)} of {len(self.features)} features drifted" + (f": {names}" if names else "")
        return text + (f"; {' and '.join(self.moved)} drifted too" if self.moved else "")
