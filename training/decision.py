"""The gate: decides from evidence, of all test rows and of slices, whether a version may become champion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.render import count_text
from skewless.contract.spec import Gate
from skewless.contract.status import BoolArray, Int64Array
from skewless.validation.evaluation.bootstrap import MetricGain, ScorePair, normal_gain

MIN_ROWS = 100
MIN_EFFECTIVE_ROWS = 10  # fewest rows of the rarer class, or queries; with fewer, intervals are unreliable
DEFAULT_CONFIDENCE = 0.95
# Fewer than for percentiles: a standard error needs fewer, and each slice has its own resamples.
_RESAMPLES = 400


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceColumn:
    """A column that divides the rows into slices.

    Args:
        values: distinct values of the column as text, ``null`` for a missing value.
        codes: ``(n,)`` int64, index of each row's value.
    """

    values: tuple[str, ...]
    codes: Int64Array

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> SliceColumn:
        """Return a column's values, numbered by first appearance.

        >>> SliceColumn.of(pa.chunked_array([["b", None, "b"]])).codes.tolist()
        [0, 1, 0]
        """
        encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
        values = ("null" if value is None else str(value) for value in encoded.dictionary.to_pylist())
        return cls(values=tuple(values), codes=np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int64))

    def only(self, mask: BoolArray) -> SliceColumn:
        """Return the rows of a mask."""
        return replace(self, codes=self.codes[mask])


@dataclass(frozen=True, kw_only=True)
class SliceGain:
    """The gain in one slice.

    Args:
        column: the key or request field.
        value: its value in the slice, as text.
        gain: the gain, with an interval that holds for all slices together.
        lost: whether the complete interval is below the gate's tolerance.
    """

    column: str
    value: str
    gain: MetricGain
    lost: bool

    @property
    def sentence(self) -> str:
        """Return a sentence about the slice's loss."""
        gain = self.gain
        return (
            f"{self.column} {self.value}: {gain.metric} {gain.candidate:.4f} against {gain.champion:.4f}"
            f" on {count_text(gain.rows, 'row')}, the gain at most {gain.high:+.4f}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"column": self.column, "value": self.value, "lost": self.lost, **asdict(self.gain)}


def measure_slice_gains(
    pair: ScorePair, columns: Mapping[str, SliceColumn], gate: Gate, seed: int
) -> tuple[SliceGain, ...]:
    """Return the gain in every slice with enough rows, the worst first.

    The worst of many slices is bad by chance alone. So the intervals have a Bonferroni correction: all of them hold at
    once with the gate's confidence (0.95 if it has none). Holm's method would block the same versions, because one
    lost slice is enough.

    Args:
        pair: scores of the test rows.
        columns: slice columns of these rows.
        gate: has the metric, confidence and slice tolerance.
        seed: seed of the resamples.
    """
    slices = list(_slices(pair, columns))
    alpha = 1.0 - (DEFAULT_CONFIDENCE if gate.confidence is None else gate.confidence)
    # Bonferroni: each of the slices gets an equal share of the error probability.
    confidence = 1.0 - alpha / max(1, len(slices))
    gains = []
    for column, value, part in slices:
        gain = normal_gain(part, gate.metric, confidence=confidence, resamples=_RESAMPLES, seed=seed)
        if gain.high is not None:
            lost = gain.high < -gate.slice_tolerance
            gains.append(SliceGain(column=column, value=value, gain=gain, lost=lost))
    return tuple(sorted(gains, key=lambda each: (not each.lost, each.gain.high, each.column, each.value)))


def _slices(pair: ScorePair, columns: Mapping[str, SliceColumn]) -> Iterator[tuple[str, str, ScorePair]]:
    for name, column in columns.items():
        counts = np.bincount(column.codes, minlength=len(column.values))
        for code in np.flatnonzero(counts >= MIN_ROWS).tolist():
            part = pair.only(column.codes == code)
            if _effective_rows(part) >= MIN_EFFECTIVE_ROWS:
                yield name, column.values[code], part


def _effective_rows(pair: ScorePair) -> int:
    """Return the number of queries, of rows in the rarer class, or of rows, by task."""
    if pair.groups is not None:
        return int(np.unique(pair.groups).size)
    if pair.task == "binary":
        positive = int((pair.labels == 1.0).sum())
        return min(positive, pair.labels.size - positive)
    return int(pair.labels.size)


_ROUNDING = 1 + 1e-9


@dataclass(frozen=True, kw_only=True)
class GateEvidence:
    """The evidence of a gate; each number is the gate's metric on the same test rows.

    Args:
        candidate: the new version's; None: it is undefined on these rows.
        baseline: a constant prediction's; None if the metric has none.
        champion: the champion's; None: no champion exists, or it cannot be compared.
        obstacle: why the champion cannot be compared; empty otherwise.
        gain: gain of the new version over the champion, with its interval, which decides if the gate has a confidence;
            None without a champion.
        slices: gains in slices, the worst first; one lost slice fails the gate.
    """

    candidate: float | None
    baseline: float | None = None
    champion: float | None = None
    obstacle: str = ""
    gain: MetricGain | None = None
    slices: Sequence[SliceGain] = ()


@dataclass(frozen=True, kw_only=True)
class Decision(GateEvidence):
    """The gate's decision about a version, with its reason and evidence.

    Args:
        by_rollout: whether a promotion starts a rollout instead of moving the alias.
    """

    promote: bool
    reason: str
    by_rollout: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "promote": self.promote,
            "by_rollout": self.by_rollout,
            "reason": self.reason,
            "candidate": self.candidate,
            "champion": self.champion,
            "baseline": self.baseline,
            "gain": None if self.gain is None else asdict(self.gain),
            "slices": [each.as_dict() for each in self.slices],
        }


def decide(gate: Gate, evidence: GateEvidence) -> Decision:
    """Return the gate's decision.

    >>> decide(Gate(metric="auc", floor=0.6), GateEvidence(candidate=0.7, baseline=0.5, champion=0.69)).promote
    True
    """
    promote, reason = _verdict(gate, evidence)
    return Decision(promote=promote, reason=reason, **vars(evidence))


def _verdict(gate: Gate, evidence: GateEvidence) -> tuple[bool, str]:
    candidate, baseline = evidence.candidate, evidence.baseline
    if candidate is None:
        return False, f"{gate.metric} is undefined on the test rows"
    sign = -1.0 if gate.metric in LOWER_IS_BETTER else 1.0
    text = f"{gate.metric} {candidate:.4f}"
    if gate.floor is not None and sign * candidate < sign * gate.floor:
        return False, f"{text} misses the floor {gate.floor:.4f}"
    # A tie fails: a model as good as a constant has learned nothing.
    if gate.beat_baseline and baseline is not None and not sign * candidate > sign * baseline:
        return False, f"{text} is not better than the constant prediction's {baseline:.4f} on the same rows"
    promote, reason = _compare_with_champion(gate, evidence, candidate, sign)
    if gate.beat_baseline and baseline is None:
        reason += f"; {gate.metric} has no baseline on these rows"
    return promote, reason


def _compare_with_champion(gate: Gate, evidence: GateEvidence, candidate: float, sign: float) -> tuple[bool, str]:
    champion, gain = evidence.champion, evidence.gain
    if champion is None:
        return _decide_without_champion(gate, evidence, candidate)
    text = f"{gate.metric} {candidate:.4f} against the champion's {champion:.4f} on the same rows"
    if gate.confidence is not None:
        text += f", {_interval(gain)}"
    # With a confidence, the lower end of the interval must pass. Without an interval nothing is proven, so the gate
    # fails.
    lowest_gain = sign * (candidate - champion) if gate.confidence is None else None if gain is None else gain.low
    # In floating point 0.69 - 0.70 is slightly less than -0.01, so a tolerance of 0.01 needs this rounding.
    if lowest_gain is None or lowest_gain < -gate.tolerance * _ROUNDING:
        return False, text
    lost_slices = [each.sentence for each in evidence.slices if each.lost]
    if lost_slices:
        more = f", and {len(lost_slices) - 1} more" if len(lost_slices) > 1 else ""
        return False, f"{text}; but it loses in {lost_slices[0]}{more}"
    return True, text


def _decide_without_champion(gate: Gate, evidence: GateEvidence, candidate: float) -> tuple[bool, str]:
    """Return the verdict on a version that passed floor and baseline, if no champion was measured."""
    if not evidence.obstacle:
        return True, f"{gate.metric} {candidate:.4f}, no champion to compare with"
    passed = []
    if gate.floor is not None:
        passed.append(f"reaches the floor {gate.floor:.4f}")
    if gate.beat_baseline and evidence.baseline is not None:
        passed.append(f"is better than the constant prediction's {evidence.baseline:.4f}")
    reasons = " and ".join(passed) or "has no floor or baseline to pass"
    text = f"{gate.metric} {candidate:.4f} {reasons}; the champion cannot be compared: {evidence.obstacle}"
    # The comparison is missing, so at least one other condition must have been passed.
    return bool(passed), text


def _interval(gain: MetricGain | None) -> str:
    if gain is None or gain.low is None or gain.high is None:
        return "the gain without an interval"
    return f"the gain between {gain.low:+.4f} and {gain.high:+.4f} ({gain.confidence:.4g} confidence)"
