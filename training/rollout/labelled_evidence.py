"""What labelled predictions say of both arms of a rollout."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.metrics import LOWER_IS_BETTER
from skewless.contract.spec import ModelSpec, Task
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.runtimes.port import Scores, Vector
from skewless.training.rollout.evidence import Estimate, MeanComparison
from skewless.training.rollout.sequential import LEAST, Losses, Moments
from skewless.validation.live_quality import Quality, live_quality

# A mean of losses is normal only if no single one can outweigh it.
_SUREST = 1e-3
# Guardrails are asked every few seconds: from the 95 % of live quality to 99.99 %.
_WIDER = 3.8906 / 1.96


@dataclass(frozen=True, kw_only=True)
class LabelledEvidence:
    """What both arms have shown on labels; None: too little."""

    quality: MeanComparison | None = None
    business: MeanComparison | None = None
    losses: Losses | None = None


def labelled(rows: pa.Table, spec: ModelSpec, policy: TrafficPolicy, numbers: Collection[int]) -> LabelledEvidence:
    """Compare both arms of a rollout on the labels that have come for it so far.

    Once the challenger has answers with labels, they count; before, what it scored as a shadow.

    Args:
        rows: what ``LabelledLog.read`` returns.
        spec: of the model.
        policy: the one in force.
        numbers: of all policies of the rollout.
    """
    own = rows.filter(pc.is_in(rows["policy"], pa.array(sorted(numbers), pa.int64())))
    champion = own.filter((pc.field("version") == policy.champion) & (pc.field("role") == "champion"))
    others = own.filter(pc.field("version") == policy.challenger)
    answered = others.filter(pc.field("role") == "challenger")
    known = answered["label"].null_count < answered.num_rows
    challenger = answered if known else others.filter(pc.field("role") == "shadow")
    if not champion.num_rows or not challenger.num_rows:
        return LabelledEvidence()
    (before,), (after,) = live_quality(champion, spec), live_quality(challenger, spec)
    return LabelledEvidence(
        quality=_quality(before, after, spec),
        business=_business(before, after),
        losses=_losses(champion, challenger, spec),
    )


def losses(labels: Vector, scores: Scores, task: Task) -> Vector:
    """Return one loss a row: squared error, or log loss, in which no score is surer than 0.1 %; none for rankings.

    >>> losses(np.array([1.0, 0.0]), np.array([1.0, 0.5]), "binary").round(3).tolist()
    [0.001, 0.693]
    """
    if task == "regression":
        return np.asarray((scores - labels) ** 2, dtype=np.float64)
    if task == "ranking":
        return np.empty(0)
    own = scores if scores.ndim == 1 else np.take_along_axis(scores, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    right = own if scores.ndim > 1 else np.where(labels == 1.0, own, 1 - own)
    return np.asarray(-np.log(np.clip(right, _SUREST, 1 - _SUREST)))


def _quality(champion: Quality, challenger: Quality, spec: ModelSpec) -> MeanComparison | None:
    name = spec.gate.metric
    values = [one.metric(name) for one in (champion, challenger)]
    estimates = [_estimate(value, one.interval) for value, one in zip(values, (champion, challenger), strict=True)]
    few = min(one.units for one in (champion, challenger)) < LEAST
    return None if few else _compared(*estimates, lower_is_better=name in LOWER_IS_BETTER)


def _business(champion: Quality, challenger: Quality) -> MeanComparison | None:
    if min(champion.valued, challenger.valued) < LEAST:
        return None
    estimates = [_estimate(one.value, one.value_interval) for one in (champion, challenger)]
    return _compared(*estimates, lower_is_better=False)


def _compared(
    champion: Estimate | None, challenger: Estimate | None, *, lower_is_better: bool
) -> MeanComparison | None:
    if champion is None or challenger is None:
        return None
    return MeanComparison.of(champion, challenger, lower_is_better=lower_is_better)


def _estimate(value: float | None, interval: tuple[float, float] | None) -> Estimate | None:
    if value is None or interval is None:
        return None
    return Estimate(value=value, low=interval[0], high=interval[1]).widened(_WIDER)


def _losses(champion: pa.Table, challenger: pa.Table, spec: ModelSpec) -> Losses:
    before, after = (_moments(rows, spec) for rows in (champion, challenger))
    return Losses(champion=before, challenger=after)


def _moments(rows: pa.Table, spec: ModelSpec) -> Moments:
    known = rows.filter(pc.is_in(rows["label"], _usable(spec))) if spec.task in {"binary", "multiclass"} else rows
    known = known.filter(pc.is_finite(known["label"]))
    labels, scores = known["label"].to_numpy(), known["score"].to_numpy()
    if spec.task == "multiclass":
        lists = known["scores"].to_pylist()
        scores = np.array(lists, dtype=np.float64).reshape(len(lists), -1)
    found = losses(labels, scores, spec.task)
    return Moments.of(found, known["unit"].to_numpy()[: found.size])


def _usable(spec: ModelSpec) -> pa.Array:
    return pa.array(range(len(spec.classes) or 2), pa.float64())
