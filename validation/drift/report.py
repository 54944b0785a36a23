"""What was found of a model's drift in one window, for programs and for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from skewless.contract.clock import from_us
from skewless.contract.lifecycle import Watch
from skewless.validation.drift.verdicts import ColumnDrift

DriftVerdict = Literal["drifted", "steady", "too_few_rows"]
_TOLD = 5


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """One window of one model version against its training.

    Args:
        since_us, until_us: the window, UTC microseconds, end exclusive.
        rows: predictions in it.
        watch: limits.
        features: in the order of the model.
        score: of the score; None: the package does not know the scores of its test period.
        label: of the labels known by now; None: none is, or the package does not know those of training.
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
        """Return the features that have drifted, the farthest first."""
        found = [column for column in self.features if column.drifted]
        return [column.name for column in sorted(found, key=lambda column: -column.distances["psi"])]

    @property
    def share(self) -> float:
        """Return the share of the features that have drifted."""
        return len(self.drifted) / len(self.features) if self.features else 0.0

    @property
    def verdict(self) -> DriftVerdict:
        """Return whether the model has drifted: enough of its features have."""
        if self.rows < self.watch.least_rows:
            return "too_few_rows"
        return "drifted" if self.share >= self.watch.share else "steady"

    @property
    def moved(self) -> list[str]:
        """Return which of score and label have drifted."""
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
        """Return the verdict for people."""
        if self.verdict == "too_few_rows":
            return f"{self.rows:,} predictions: fewer than the {self.watch.least_rows:,} from which drift is judged"
        names = ", ".join(self.drifted[:_TOLD]) + (", ..." if len(self.drifted) > _TOLD else "")
        text = f"{len(self.drifted)} of {len(self.features)} features drifted" + (f": {names}" if names else "")
        return text + (f"; {' and '.join(self.moved)} moved too" if self.moved else "")
