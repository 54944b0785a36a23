"""What the gate decides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.spec import Gate
from skewless.training.decision import Decision, GateEvidence, SliceGain
from skewless.training.decision import decide as decide_by
from skewless.validation.evaluation.bootstrap import MetricGain

QUALITY = st.floats(-1e6, 1e6)
BEATEN = "is better than the constant prediction's 0.5000; the champion cannot be compared: gone"
GAIN = MetricGain(
    metric="auc", rows=200, candidate=0.7, champion=0.69, gain=0.01, low=-0.004, high=0.02, confidence=0.95
)


def decide(
    gate: Gate,
    candidate: float | None,
    champion: float | None,
    gain: MetricGain | None = None,
    slices: Sequence[SliceGain] = (),
) -> Decision:
    """Return the decision of a gate that does not look at the baseline."""
    evidence = GateEvidence(candidate=candidate, champion=champion, gain=gain, slices=slices)
    return decide_by(replace(gate, beat_baseline=False), evidence)


@pytest.mark.parametrize(
    ("gate", "candidate", "champion", "promoted", "reason"),
    [
        (Gate(), 0.6, None, True, "auc 0.6000, no champion to compare with"),
        (Gate(), 0.6, 0.6, True, "auc 0.6000 against the champion's 0.6000 on the same rows"),
        (Gate(), 0.6, 0.61, False, "auc 0.6000 against the champion's 0.6100 on the same rows"),
        (Gate(tolerance=0.25), 0.5, 0.75, True, "auc 0.5000 against the champion's 0.7500 on the same rows"),
        (Gate(tolerance=0.25), 0.25, 0.75, False, "auc 0.2500 against the champion's 0.7500 on the same rows"),
        (Gate(floor=0.6), 0.6, None, True, "auc 0.6000, no champion to compare with"),
        (Gate(floor=0.6), 0.59, None, False, "auc 0.5900 misses the floor 0.6000"),
        (Gate(floor=0.6), 0.59, 0.1, False, "auc 0.5900 misses the floor 0.6000"),
        (Gate(metric="rmse", floor=2.0), 2.0, None, True, "rmse 2.0000, no champion to compare with"),
        (Gate(metric="rmse", floor=2.0), 2.1, 3.0, False, "rmse 2.1000 misses the floor 2.0000"),
        (Gate(metric="rmse"), 2.0, 2.5, True, "rmse 2.0000 against the champion's 2.5000 on the same rows"),
        (Gate(metric="rmse"), 2.5, 2.0, False, "rmse 2.5000 against the champion's 2.0000 on the same rows"),
        (Gate(metric="mae", tolerance=1), 2.5, 2.0, True, "mae 2.5000 against the champion's 2.0000 on the same rows"),
        (Gate(floor=0.0), None, None, False, "auc is undefined on the test rows"),
        (Gate(), None, 0.7, False, "auc is undefined on the test rows"),
    ],
)
def test_the_gate(gate: Gate, candidate: float | None, champion: float | None, reason: str, *, promoted: bool) -> None:
    decision = decide(gate, candidate, champion)
    assert (decision.promote, decision.reason) == (promoted, reason)
    assert (decision.candidate, decision.champion) == (candidate, champion)


@pytest.mark.parametrize("metric", ["auc", *sorted(LOWER_IS_BETTER)])
@given(candidate=QUALITY, champion=st.none() | QUALITY, floor=st.none() | QUALITY, better=st.floats(0, 1e6))
def test_a_better_candidate_is_never_refused_where_a_worse_one_passes(
    metric: str, candidate: float, champion: float | None, floor: float | None, better: float
) -> None:
    gate = Gate(metric=metric, floor=floor)
    improved = candidate - better if metric in LOWER_IS_BETTER else candidate + better
    if decide(gate, candidate, champion).promote:
        assert decide(gate, improved, champion).promote
        assert champion is None or decide(gate, champion, candidate).promote <= (champion == candidate)


def test_the_tolerance_itself_is_accepted() -> None:
    assert decide(Gate(metric="auc", tolerance=0.01), 0.69, 0.70).promote
    assert not decide(Gate(metric="auc", tolerance=0.01), 0.6899, 0.70).promote


@pytest.mark.parametrize(
    ("tolerance", "low", "promoted"),
    [(0.0, -0.004, False), (0.004, -0.004, True), (0.0039, -0.004, False), (0.0, 0.0, True), (0.5, None, False)],
)
def test_with_a_confidence_the_lower_end_decides(tolerance: float, low: float | None, *, promoted: bool) -> None:
    gain = replace(GAIN, low=low, high=None if low is None else 0.02)
    decision = decide(Gate(confidence=0.95, tolerance=tolerance), 0.7, 0.69, gain)
    assert decision.promote is promoted
    assert decide(Gate(tolerance=tolerance), 0.7, 0.69, gain).promote
    shown = "the gain without an interval" if low is None else f"the gain between {low:+.4f} and +0.0200 (0.95 conf"
    assert shown in decision.reason


def test_a_lost_slice_blocks_and_is_named() -> None:
    lost = SliceGain(column="carrier", value="AA", gain=replace(GAIN, low=-0.3, high=-0.1), lost=True)
    kept = SliceGain(column="carrier", value="BB", gain=GAIN, lost=False)
    assert decide(Gate(), 0.7, 0.69, GAIN, [kept]).promote
    decision = decide(Gate(), 0.7, 0.69, GAIN, [lost, lost, kept])
    assert not decision.promote
    assert (
        "but it loses in carrier AA: auc 0.7000 against 0.6900 on 200 rows, the gain at most -0.1000, and 1 more"
        in (decision.reason)
    )
    assert decision.as_dict()["slices"][0]["value"] == "AA"
    assert json.loads(json.dumps(decision.as_dict())) == decision.as_dict()


@pytest.mark.parametrize(
    ("gate", "candidate", "baseline", "promoted", "reason"),
    [
        (Gate(), 0.5, 0.5, False, "auc 0.5000 is not better than the constant prediction's 0.5000 on the same rows"),
        (Gate(), 0.5001, 0.5, True, "auc 0.5001, no champion to compare with"),
        (
            Gate(metric="rmse"),
            15.29,
            15.21,
            False,
            "rmse 15.2900 is not better than the constant prediction's 15.2100 on the same rows",
        ),
        (Gate(metric="rmse"), 15.2, 15.21, True, "rmse 15.2000, no champion to compare with"),
        (Gate(metric="rmse", beat_baseline=False), 15.29, 15.21, True, "rmse 15.2900, no champion to compare with"),
        (
            Gate(metric="recall"),
            0.3,
            None,
            True,
            "recall 0.3000, no champion to compare with; recall has no baseline on these rows",
        ),
        (Gate(floor=0.7), 0.6, 0.65, False, "auc 0.6000 misses the floor 0.7000"),
    ],
)
def test_a_constant_must_be_beaten(
    gate: Gate, candidate: float, baseline: float | None, reason: str, *, promoted: bool
) -> None:
    decision = decide_by(gate, GateEvidence(candidate=candidate, baseline=baseline))
    assert (decision.promote, decision.reason, decision.baseline) == (promoted, reason, baseline)
    assert decision.as_dict()["baseline"] == baseline


@given(candidate=QUALITY, baseline=QUALITY, champion=st.none() | QUALITY, metric=st.sampled_from(["auc", "rmse"]))
def test_whatever_else_holds_a_constant_is_not_replaced_by_worse(
    candidate: float, baseline: float, champion: float | None, metric: str
) -> None:
    better = candidate < baseline if metric == "rmse" else candidate > baseline
    evidence = GateEvidence(candidate=candidate, baseline=baseline, champion=champion)
    promoted = decide_by(Gate(metric=metric, tolerance=1e9), evidence).promote
    assert promoted <= better


@pytest.mark.parametrize(
    ("gate", "baseline", "promoted", "reason"),
    [
        (Gate(), 0.5, True, f"auc 0.7000 {BEATEN}"),
        (Gate(), 0.8, False, "auc 0.7000 is not better than the constant prediction's 0.8000 on the same rows"),
        (
            Gate(floor=0.6),
            0.5,
            True,
            f"auc 0.7000 reaches the floor 0.6000 and {BEATEN}",
        ),
        (
            Gate(beat_baseline=False),
            0.5,
            False,
            "auc 0.7000 has no floor or baseline to pass; the champion cannot be compared: gone",
        ),
    ],
)
def test_without_a_comparable_champion_floor_and_baseline_decide(
    gate: Gate, baseline: float, reason: str, *, promoted: bool
) -> None:
    decision = decide_by(gate, GateEvidence(candidate=0.7, baseline=baseline, obstacle="gone"))
    assert (decision.promote, decision.reason, decision.champion) == (promoted, reason, None)
