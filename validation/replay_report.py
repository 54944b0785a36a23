"""The report of a replay: differences by cause, as data and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

from skewless.contract.render import count_text
from skewless.validation.inventory import Inventory

_MAX_EXAMPLES = 3
Reason = Literal["in_flight", "cached", "after_t", "late", "corrected"]


class Cause(StrEnum):
    """Why a logged prediction differs from its recomputation."""

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
    ACTION = "action"
    ERASED_LIST = "erased_list"


# Causes that an erasure alone explains: they are counted as erased, not as differences.
CAUSES_OF_ERASURE = frozenset({Cause.ERASED_LIST})
# Causes that need the rows that were read. Others are proven without them, also after an erasure.
CAUSES_OF_ROWS = frozenset(
    {Cause.VALUE, Cause.LOST_WRITE, Cause.STALE_WRITE, Cause.UNKNOWN_VERSION, Cause.LOG_ALTERED, Cause.STATUS}
)
GLOSS: Mapping[Cause, str] = {
    Cause.LOGGED_VALUE: "the logged prediction was altered after it was served",
    Cause.VALUE: "a served feature value differs from its log row",
    Cause.TRANSFORM: "a request-time transform gave another result",
    Cause.LOST_WRITE: "a row that was applied before the read was missing",
    Cause.STALE_WRITE: "an older row was read after a newer row",
    Cause.UNKNOWN_VERSION: "the row that was read belongs to a run that had not begun",
    Cause.LOG_ALTERED: "the named row is not in the log, or differs from the read row",
    Cause.STATUS: "the served status does not follow from the row and the time",
    Cause.PLAN: "the prediction was made with another plan than the package's",
    Cause.FLOAT32_SCORE: "the model was scored on values rounded to float32",
    Cause.SCORE: "the model gave another score for the same vector",
    Cause.ERASED_LIST: "the action follows from a list that has lost the value of an erased entity",
    Cause.ACTION: "another action, or another propensity, follows from the score and the exploration",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One difference: prediction, cause, and the view or feature."""

    prediction: str
    cause: Cause
    about: str
    detail: str


@dataclass(kw_only=True)
class Findings:
    """Counts of differences by cause, with the first of each cause and view or feature as examples.

    Args:
        max_examples: of each cause and view or feature; None: all differences are examples.
    """

    by_cause: Counter[Cause] = field(default_factory=Counter)
    predictions: set[str] = field(default_factory=set)
    examples: list[Finding] = field(default_factory=list)
    max_examples: int | None = _MAX_EXAMPLES
    _seen: Counter[tuple[Cause, str]] = field(default_factory=Counter, repr=False)

    def add(self, prediction: str, cause: Cause, about: str, detail: str) -> None:
        """Record one difference."""
        self.by_cause[cause] += 1
        self.predictions.add(prediction)
        self._seen[cause, about] += 1
        if self.max_examples is None or self._seen[cause, about] <= self.max_examples:
            self.examples.append(Finding(prediction=prediction, cause=cause, about=about, detail=detail))

    def merge(self, other: Findings) -> None:
        """Add the differences of other predictions."""
        counts = self.by_cause + other.by_cause
        for item in other.examples:
            self.add(item.prediction, item.cause, item.about, item.detail)
        self.by_cause = counts
        self.predictions |= other.predictions


@dataclass(kw_only=True)
class TrainingGap:
    """The difference between served vectors and the training rows of one time mode.

    Args:
        rows: compared predictions: all except ``as_of`` requests and full vectors.
        different: predictions whose vector differs.
        reasons: different reads, by view and reason: ``in_flight`` (the run had not ended at t), ``cached`` (a
            feature cache had an older row), ``after_t`` (a decision knew rows that were not known at t), ``late``
            (training uses a row that arrived later), ``corrected`` (a later row with equal event time).
    """

    rows: int = 0
    different: int = 0
    reasons: dict[str, Counter[Reason]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Return plain values."""
        reasons = {view: dict(counts) for view, counts in self.reasons.items() if counts}
        return {"rows": self.rows, "different": self.different, "reasons": reasons}

    def why(self) -> str:
        """Return the reasons as text, empty without any.

        >>> TrainingGap(reasons={"weather": Counter({"late": 3})}).why()
        '; weather: 3 late'
        """
        parts = [
            f"; {view}: " + ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
            for view, counts in self.reasons.items()
            if counts
        ]
        return "".join(parts)


@dataclass(kw_only=True)
class ReplayReport:
    """The report of a replay.

    Args:
        compared: recomputed predictions.
        given: recomputed predictions whose full vectors the caller had sent, so nothing was read.
        findings: all differences; there should be none.
        erased: predictions that cannot be proven any more, because rows that they may have read were erased.
        status: per view, reads by status.
        absent: per view, the keys with status NOT_FOUND.
        inside_run: predictions whose reads overlapped a materialization run.
        changing, saw_old, saw_new: reads of keys that such a run was changing, and the row that they returned.
        inventory: rows that the log has lost, or has twice.
        training: differences from the training rows of each time mode (not a failure).
    """

    compared: int = 0
    given: int = 0
    findings: Findings = field(default_factory=Findings)
    erased: int = 0
    status: dict[str, Counter[str]] = field(default_factory=dict)
    absent: dict[str, set[object]] = field(default_factory=dict)
    inside_run: int = 0
    changing: int = 0
    saw_old: int = 0
    saw_new: int = 0
    inventory: Inventory = field(default_factory=Inventory)
    training: dict[str, TrainingGap] = field(
        default_factory=lambda: {"knowledge": TrainingGap(), "event_time": TrainingGap()}
    )

    def merge(self, other: ReplayReport) -> None:
        """Add the report of other predictions."""
        for name in ("compared", "given", "erased", "inside_run", "changing", "saw_old", "saw_new"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.findings.merge(other.findings)
        for view, counts in other.status.items():
            self.status.setdefault(view, Counter()).update(counts)
        for view, keys in other.absent.items():
            self.absent.setdefault(view, set()).update(keys)
        for mode, gap in other.training.items():
            own = self.training[mode]
            own.rows, own.different = own.rows + gap.rows, own.different + gap.different
            for view, reasons in gap.reasons.items():
                own.reasons.setdefault(view, Counter()).update(reasons)

    @property
    def different(self) -> int:
        """Return the number of predictions that differ in at least one bit, or whose reads are impossible."""
        return len(self.findings.predictions)

    @property
    def ok(self) -> bool:
        """Return whether every prediction is logged once and proven, except those whose rows were erased."""
        return self.different == 0 and self.inventory.is_complete

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "compared": self.compared,
            "given": self.given,
            "different": self.different,
            "erased": self.erased,
            "missing": self.inventory.missing,
            "missing_files": list(self.inventory.files),
            "duplicates": self.inventory.duplicates,
            "by_cause": {cause.value: count for cause, count in self.findings.by_cause.items()},
            "examples": [asdict(item) for item in self.findings.examples],
            "status": {view: dict(counts) for view, counts in self.status.items()},
            "lines": self.lines(),
            "inside_run": self.inside_run,
            "changing": {"reads": self.changing, "saw_old": self.saw_old, "saw_new": self.saw_new},
            "training": {mode: gap.as_dict() for mode, gap in self.training.items()},
        }

    def _describe_absent(self, view: str) -> str:
        """Return the reason of NOT_FOUND, empty without such reads."""
        keys = self.absent.get(view, set())
        if not keys:
            return ""
        nulls = sum(1 for key in keys if isinstance(key, tuple) and None in key)
        null_text = " (including the null key)" if nulls else ""
        return f"; NOT_FOUND: {count_text(len(keys), 'key')}{null_text} without a published row at that time"

    def lines(self) -> list[str]:
        """Return the report as text, a sentence per line."""
        equal = "all others equal, bit for bit" if self.erased else "all equal, bit for bit"
        verdict = equal if not self.different else f"{self.different} DIFFERENT"
        if not self.compared:
            return self.inventory.lines() or ["the log has no predictions to prove"]
        text = [f"{count_text(self.compared, 'prediction')} recomputed from the accepted log: {verdict}"]
        text += self.inventory.lines()
        causes = self.findings.by_cause.most_common()
        text += [f"  {count:,} x {cause.value}: {GLOSS[cause]}" for cause, count in causes]
        text += [
            f"  {item.prediction} {item.cause.value} {item.about}: {item.detail}" for item in self.findings.examples[:5]
        ]
        if self.erased:
            text.append(f"  {self.erased:,} of them cannot be proven: rows that they may have read were erased")
        if self.given:
            text.append(f"  {self.given:,} of them came as full vectors: they were scored again without reads")
        text += [f"  {view}: {_shares(counts)}{self._describe_absent(view)}" for view, counts in self.status.items()]
        text.append(
            f"{self.inside_run:,} were read while a run was writing; of reads whose key it changed,"
            f" {self.saw_old:,} saw the old row and {self.saw_new:,} the new one"
        )
        for mode, gap in self.training.items():
            share = f"{gap.different:,} of {count_text(gap.rows, 'vector')}"
            text.append(f"training with time_mode {mode!r} would differ in {share}{gap.why()}")
        return text


def _shares(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    return ", ".join(f"{status} {count / total:.1%}" for status, count in sorted(counts.items(), key=lambda x: -x[1]))
