"""The gain of more features: two models on the same rows, with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.validation.evaluation.bootstrap import MetricGain, ScoredRows, ScorePair, paired_gain

_RESAMPLES = 400


def gain_text(gain: MetricGain) -> str:
    """Return an AUC's gain for people."""
    interval = f"gain {gain.gain:.3f} [{gain.low:.3f}, {gain.high:.3f}]"
    return f"AUC {gain.champion:.3f} -> {gain.candidate:.3f}, {interval}, 95 % bootstrap interval"


def auc_gain(before: ScoredRows, after: ScoredRows) -> MetricGain | None:
    """Return the gain of the second model on the same rows; None: the labels differ, or an AUC does not exist."""
    if not np.array_equal(before.labels, after.labels):
        return None
    pair = ScorePair(labels=before.labels, candidate=after.scores, champion=before.scores)
    gain = paired_gain(pair, "auc", resamples=_RESAMPLES)
    return None if gain.low is None else gain


def pairs(models: Sequence[ModelSpec], plan: FeaturePlan) -> Iterator[tuple[str, str]]:
    """Yield pairs of binary models that differ only in their views: fewer views first."""
    views = {spec.name: {view.name for view in plan.select_service(spec.service).all_views} for spec in models}
    for less in models:
        for more in models:
            is_pair = replace(more, name=less.name, service=less.service, retrain=less.retrain) == less
            if is_pair and less.task == "binary" and views[less.name] < views[more.name]:
                yield less.name, more.name


def gains(models: Sequence[ModelSpec], plan: FeaturePlan, scored: Mapping[str, ScoredRows]) -> dict[str, MetricGain]:
    """Return the gains of more views on scored rows, by the names of both models."""
    by_names = {f"{less} -> {more}": auc_gain(scored[less], scored[more]) for less, more in pairs(models, plan)}
    return {names: gain for names, gain in by_names.items() if gain is not None}
