"""What replay found different, by cause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

_MOST_EXAMPLES = 3


class Cause(StrEnum):
    """Why a logged prediction is not what the log of rows says it must be."""

    LOGGED_VALUE = "logged_value"
    VALUE = "value"
    TRANSFORM = "transform"
    LOST_WRITE = "lost_write"
    STALE_WRITE = "stale_write"
    UNKNOWN_VERSION = "unknown_version"
    LOG_ALTERED = "log_altered"
    STATUS = "status"
    PLAN = "plan"
    FLOAT32_SCORE = "float32_score"
    SCORE = "score"


GLOSS: Mapping[Cause, str] = {
    Cause.LOGGED_VALUE: "the logged vector or score was altered after it was served",
    Cause.VALUE: "a feature value served is not the one in the log row it names",
    Cause.TRANSFORM: "a request-time transform computed something else",
    Cause.LOST_WRITE: "a row applied before the read was not there",
    Cause.STALE_WRITE: "an older row stood where a newer one had been read before",
    Cause.UNKNOWN_VERSION: "the row read belongs to no run that had begun",
    Cause.LOG_ALTERED: "the row named is not in the log, or is another than was read",
    Cause.STATUS: "the status served does not follow from the row and the time",
    Cause.PLAN: "the prediction was made under another plan than the package's",
    Cause.FLOAT32_SCORE: "the model was scored on values rounded to float32",
    Cause.SCORE: "the model gave another score for the same vector",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One difference: prediction, cause, and the view or feature it is about."""

    prediction: str
    cause: Cause
    about: str
    detail: str


@dataclass(kw_only=True)
class Findings:
    """Differences counted by cause; the first of each cause and thing are kept as examples."""

    by_cause: Counter[Cause] = field(default_factory=Counter)
    predictions: set[str] = field(default_factory=set)
    examples: list[Finding] = field(default_factory=list)
    _seen: Counter[tuple[Cause, str]] = field(default_factory=Counter, repr=False)

    def add(self, prediction: str, cause: Cause, about: str, detail: str) -> None:
        """Record one difference."""
        self.by_cause[cause] += 1
        self.predictions.add(prediction)
        self._seen[cause, about] += 1
        if self._seen[cause, about] <= _MOST_EXAMPLES:
            self.examples.append(Finding(prediction=prediction, cause=cause, about=about, detail=detail))
