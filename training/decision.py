"""The gate: whether a version may become champion, and on what evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.spec import Gate
from skewless.training.slices import SliceGain
from skewless.validation.evaluation.bootstrap import MetricGain

_ROUNDING = 1 + 1e-9


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a version becomes champion, and why.

    Args:
        candidate: the gate's metric of the new version.
        champion: the same of the champion on the same rows; None without a comparable champion.
        baseline: the same of a constant prediction on the same rows; None where the metric has none.
        gain: of the new version over the champion, with its interval; None without one.
        slices: the same in each slice, the worst first.
        by_rollout: whether a rollout, not the alias's move, is what a promotion begins.
    """

    promote: bool
    reason: str
    candidate: float | None
    champion: float | None
    baseline: float | None = None
    gain: MetricGain | None = None
    slices: tuple[SliceGain, ...] = ()
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
            "gain": None if self.gain is None else self.gain.as_dict(),
            "slices": [each.as_dict() for each in self.slices],
        }


@dataclass(frozen=True, kw_only=True)
class GateEvidence:
    """What a gate decides by; each number is the gate's metric on the same test rows.

    Args:
        candidate: of the new version; None: it does not exist on these rows.
        baseline: of a constant prediction; None where the metric has none.
        champion: of the champion; None: there is none, or it cannot be compared.
        obstacle: why there is a champion that cannot be compared; empty otherwise.
        gain: of the new version over the champion, whose interval decides if the gate has a confidence.
        slices: a lost one is enough for a no.
    """

    candidate: float | None
    baseline: float | None = None
    champion: float | None = None
    obstacle: str = ""
    gain: MetricGain | None = None
    slices: Sequence[SliceGain] = ()


def decide(gate: Gate, evidence: GateEvidence) -> Decision:
    """Return the gate's decision.

    >>> decide(Gate(metric="auc", floor=0.6), GateEvidence(candidate=0.7, baseline=0.5, champion=0.69)).promote
    True
    """
    promote, reason = _verdict(gate, evidence)
    return Decision(
        promote=promote,
        reason=reason,
        candidate=evidence.candidate,
        champion=evidence.champion,
        baseline=evidence.baseline,
        gain=evidence.gain,
        slices=tuple(evidence.slices),
    )


def _verdict(gate: Gate, evidence: GateEvidence) -> tuple[bool, str]:
    candidate, baseline = evidence.candidate, evidence.baseline
    if candidate is None:
        return False, f"{gate.metric} does not exist on the test rows"
    sign = -1.0 if gate.metric in LOWER_IS_BETTER else 1.0
    found = f"{gate.metric} {candidate:.4f}"
    if gate.floor is not None and sign * candidate < sign * gate.floor:
        return False, f"{found} misses the floor {gate.floor:.4f}"
    if gate.beat_baseline and baseline is not None and not sign * candidate > sign * baseline:
        return False, f"{found} does not beat the constant prediction's {baseline:.4f} on the same rows"
    promote, reason = _against_champion(gate, evidence, candidate, sign)
    if gate.beat_baseline and baseline is None:
        reason += f"; {gate.metric} has no baseline to beat on these rows"
    return promote, reason


def _against_champion(gate: Gate, evidence: GateEvidence, candidate: float, sign: float) -> tuple[bool, str]:
    champion, gain = evidence.champion, evidence.gain
    if champion is None:
        return _without_champion(gate, evidence, candidate)
    text = f"{gate.metric} {candidate:.4f} against the champion's {champion:.4f} on the same rows"
    if gate.confidence is not None:
        text += f", {_interval(gain)}"
    lowest = sign * (candidate - champion) if gate.confidence is None else None if gain is None else gain.low
    # 0.69 - 0.70 is a little less than -0.01 in floating point.
    if lowest is None or lowest < -gate.tolerance * _ROUNDING:
        return False, text
    lost = [each.sentence for each in evidence.slices if each.lost]
    if lost:
        more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
        return False, f"{text}; but it loses in {lost[0]}{more}"
    return True, text


def _without_champion(gate: Gate, evidence: GateEvidence, candidate: float) -> tuple[bool, str]:
    """Return the verdict on what reached floor and baseline, where no champion was measured."""
    if not evidence.obstacle:
        return True, f"{gate.metric} {candidate:.4f}, no champion to compare with"
    measured = []
    if gate.floor is not None:
        measured.append(f"reaches the floor {gate.floor:.4f}")
    if gate.beat_baseline and evidence.baseline is not None:
        measured.append(f"beats the constant prediction's {evidence.baseline:.4f}")
    by = " and ".join(measured) or "has no floor or baseline to be judged by"
    text = f"{gate.metric} {candidate:.4f} {by}; the champion cannot be compared: {evidence.obstacle}"
    return bool(measured), text


def _interval(gain: MetricGain | None) -> str:
    if gain is None or gain.low is None or gain.high is None:
        return "the gain without an interval"
    return f"the gain between {gain.low:+.4f} and {gain.high:+.4f} ({gain.confidence:.4g} confidence)"
