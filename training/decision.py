"""The gate: whether a version may become champion, and on what evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skewless.spec import LOWER_IS_BETTER, Gate
from training.slices import SliceGain
from validation.evaluation.bootstrap import Gain

_ROUNDING = 1 + 1e-9


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a version becomes champion, and why.

    Args:
        candidate: the gate's metric of the new version.
        champion: the same of the champion on the same rows; None without a comparable champion.
        gain: of the new version over the champion, with its interval; None without one.
        slices: the same in each slice, the worst first.
        by_rollout: whether a rollout, not the alias's move, is what a promotion begins.
    """

    promote: bool
    reason: str
    candidate: float | None
    champion: float | None
    gain: Gain | None = None
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
            "gain": None if self.gain is None else self.gain.as_dict(),
            "slices": [each.as_dict() for each in self.slices],
        }


def decide(
    gate: Gate,
    candidate: float | None,
    champion: float | None,
    gain: Gain | None = None,
    slices: Sequence[SliceGain] = (),
) -> Decision:
    """Return the gate's decision.

    Args:
        candidate, champion: the gate's metric of each.
        gain: with its interval, which decides if the gate has a confidence.
        slices: a lost one is enough for a no.

    >>> decide(Gate(metric="auc", floor=0.6), 0.7, 0.69).promote
    True
    """

    def verdict(reason: str, *, promote: bool) -> Decision:
        return Decision(
            promote=promote,
            reason=reason,
            candidate=candidate,
            champion=champion,
            gain=gain,
            slices=tuple(slices),
        )

    if candidate is None:
        return verdict(f"{gate.metric} does not exist on the test rows", promote=False)
    sign = -1.0 if gate.metric in LOWER_IS_BETTER else 1.0
    if gate.floor is not None and sign * candidate < sign * gate.floor:
        return verdict(f"{gate.metric} {candidate:.4f} misses the floor {gate.floor:.4f}", promote=False)
    if champion is None:
        return verdict(f"{gate.metric} {candidate:.4f}, no champion to compare with", promote=True)
    text = f"{gate.metric} {candidate:.4f} against the champion's {champion:.4f} on the same rows"
    if gate.confidence is not None:
        text += f", {_interval(gain)}"
    lowest = sign * (candidate - champion) if gate.confidence is None else None if gain is None else gain.low
    # 0.69 - 0.70 is a little less than -0.01 in floating point.
    if lowest is None or lowest < -gate.tolerance * _ROUNDING:
        return verdict(text, promote=False)
    lost = [each.sentence for each in slices if each.lost]
    if lost:
        more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
        return verdict(f"{text}; but it loses in {lost[0]}{more}", promote=False)
    return verdict(text, promote=True)


def _interval(gain: Gain | None) -> str:
    if gain is None or gain.low is None or gain.high is None:
        return "the gain without an interval"
    return f"the gain between {gain.low:+.4f} and {gain.high:+.4f} ({gain.confidence:.4g} confidence)"
