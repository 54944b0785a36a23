"""Compares both arms of a rollout on labelled predictions."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.spec import ModelSpec, Task
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.runtimes.port import Scores, Vector
from skewless.training.rollout.evidence import Estimate, Evidence, MeanComparison
from skewless.training.rollout.sequential import MIN_UNITS, Losses, LossSummary
from skewless.validation.live_quality import Quality, live_quality

# Limits the log loss, because the mean is approximately normal only if no single loss dominates it.
_MIN_PROBABILITY = 1e-3
# Guardrails are judged every few seconds, so the 95 % intervals of live quality are widened to 99.99 %.
_INTERVAL_FACTOR = 3.8906 / 1.96


def compare_labelled(rows: pa.Table, spec: ModelSpec, policy: TrafficPolicy, numbers: Collection[int]) -> Evidence:
    """Return quality, business value and losses of both arms of a rollout by the labels so far, without their counts.

    The challenger's served predictions count if any has a label; otherwise its shadow scores.

    Args:
        rows: the result of ``LabelledLog.read``.
        spec: the model's spec.
        policy: the current policy.
        numbers: numbers of all policies of the rollout.
    """
    # All policies of the rollout, not only the current: labels come late, and would miss a short step.
    rollout_rows = rows.filter(pc.is_in(rows["policy"], pa.array(sorted(numbers), pa.int64())))
    champion = rollout_rows.filter((pc.field("version") == policy.champion) & (pc.field("role") == "champion"))
    others = rollout_rows.filter(pc.field("version") == policy.challenger)
    served = others.filter(pc.field("role") == "challenger")
    has_labels = served["label"].null_count < served.num_rows
    challenger = served if has_labels else others.filter(pc.field("role") == "shadow")
    if not champion.num_rows or not challenger.num_rows:
        return Evidence()
    (champion_quality,), (challenger_quality,) = live_quality(champion, spec), live_quality(challenger, spec)
    return Evidence(
        quality=_compare_quality(champion_quality, challenger_quality, spec),
        business=_compare_business(champion_quality, challenger_quality),
        losses=_losses(champion, challenger, spec),
    )


def compute_losses(labels: Vector, scores: Scores, task: Task) -> Vector:
    """Return one loss per row: squared error, or log loss with probabilities clipped at 0.1 %; none for rankings.

    >>> compute_losses(np.array([1.0, 0.0]), np.array([1.0, 0.5]), "binary").round(3).tolist()
    [0.001, 0.693]
    """
    if task == "regression":
        return np.asarray((scores - labels) ** 2, dtype=np.float64)
    if task == "ranking":
        return np.empty(0)
    probabilities = (
        scores if scores.ndim == 1 else np.take_along_axis(scores, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    )
    of_label = probabilities if scores.ndim > 1 else np.where(labels == 1.0, probabilities, 1 - probabilities)
    return np.asarray(-np.log(np.clip(of_label, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)))


def _compare_quality(champion: Quality, challenger: Quality, spec: ModelSpec) -> MeanComparison | None:
    name = spec.gate.metric
    values = [quality.metric(name) for quality in (champion, challenger)]
    estimates = [
        _estimate(value, quality.interval) for value, quality in zip(values, (champion, challenger), strict=True)
    ]
    few = min(quality.units for quality in (champion, challenger)) < MIN_UNITS
    return None if few else _compare_estimates(*estimates, lower_is_better=name in LOWER_IS_BETTER)


def _compare_business(champion: Quality, challenger: Quality) -> MeanComparison | None:
    if min(champion.valued, challenger.valued) < MIN_UNITS:
        return None
    estimates = [_estimate(quality.value, quality.value_interval) for quality in (champion, challenger)]
    return _compare_estimates(*estimates, lower_is_better=False)


def _compare_estimates(
    champion: Estimate | None, challenger: Estimate | None, *, lower_is_better: bool
) -> MeanComparison | None:
    if champion is None or challenger is None:
        return None
    return MeanComparison.of(champion, challenger, lower_is_better=lower_is_better)


def _estimate(value: float | None, interval: tuple[float, float] | None) -> Estimate | None:
    if value is None or interval is None:
        return None
    return Estimate(value=value, low=interval[0], high=interval[1]).widen(_INTERVAL_FACTOR)


def _losses(champion: pa.Table, challenger: pa.Table, spec: ModelSpec) -> Losses:
    champion_moments, challenger_moments = (_moments(rows, spec) for rows in (champion, challenger))
    return Losses(champion=champion_moments, challenger=challenger_moments)


def _moments(rows: pa.Table, spec: ModelSpec) -> LossSummary:
    labelled_rows = (
        # A label outside the classes has no probability, and so no log loss.
        rows.filter(pc.is_in(rows["label"], _valid_labels(spec))) if spec.task in {"binary", "multiclass"} else rows
    )
    labelled_rows = labelled_rows.filter(pc.is_finite(labelled_rows["label"]))
    labels, scores = labelled_rows["label"].to_numpy(), labelled_rows["score"].to_numpy()
    if spec.task == "multiclass":
        outputs = labelled_rows["scores"].to_pylist()
        scores = np.array(outputs, dtype=np.float64).reshape(len(outputs), -1)
    row_losses = compute_losses(labels, scores, spec.task)
    return LossSummary.of(row_losses, labelled_rows["unit"].to_numpy()[: row_losses.size])


def _valid_labels(spec: ModelSpec) -> pa.Array:
    return pa.array(range(len(spec.classes) or 2), pa.float64())
