"""Measures the live quality of each version on predictions with known outcomes, and estimates it without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.labels import Outcomes
from skewless.contract.spec import ModelSpec, Task
from skewless.contract.status import Int64Array
from skewless.infra.models.runtimes.port import Matrix, Scores, Vector
from skewless.validation.evaluation.evaluation import Row, evaluate
from skewless.validation.evaluation.interval import Interval, effective_size, mean_interval, metric_interval
from skewless.validation.evaluation.metrics import Metrics

Table = Sequence[Row]
# A prediction is mature when it is as old as the delay within which this share of labels arrives.
QUANTILE = 0.9
_ROUNDING = 1e-12


def estimate_metrics(scores: Scores, task: Task, calibration: Table | None = None) -> Metrics | None:
    """Return the expected metrics of scores; None without rows, or if the scores are not probabilities.

    Needs no labels, if the probabilities are still correct. Confidence-based performance estimation (CBPE; NannyML,
    https://nannyml.readthedocs.io, "How it works: performance estimation"; Bialek et al., 2024, arXiv:2401.08348): each
    row counts with every label, weighted by the label's probability. This follows changes of the features, but not
    changes of the relation between features and labels.

    Args:
        scores: ``(n,)`` float64 probabilities of label 1, or ``(n, k)`` of k classes.
        task: only ``binary`` and ``multiclass`` have probabilities.
        calibration: mean score and share of label 1 of a binary model on test rows, see ``calibration_table``;
            None: the scores are used as probabilities.

    >>> estimate_metrics(np.array([0.0, 1.0]), "binary")["auc"]
    1.0
    """
    if not len(scores) or task not in {"binary", "multiclass"}:
        return None
    if task == "multiclass":
        return _expected_metrics(scores, scores, task)
    probabilities = calibrate(scores, calibration or ())
    return _expected_metrics(scores, np.stack([1.0 - probabilities, probabilities], axis=1), task)


def calibrate(scores: Vector, table: Table) -> Vector:
    """Return the probability of label 1, by monotone linear interpolation between the bins of a calibration table.

    >>> calibrate(np.array([0.1, 0.3, 0.9]), [{"score": 0.2, "label": 0.1}, {"score": 0.4, "label": 0.3}]).round(2)
    array([0.05, 0.2 , 0.88])
    """
    if not table:
        return scores
    x = np.array([0.0, *(row["score"] for row in table), 1.0])
    # A small bin may have a lower share than the bin before it; a greater score must not become less probable.
    y = np.maximum.accumulate(np.array([0.0, *(row["label"] for row in table), 1.0]))
    return np.interp(scores, x, y)


def _expected_metrics(scores: Scores, probabilities: Matrix, task: Task) -> Metrics:
    """Return the metrics of rows that have every label, weighted by its probability."""
    n, k = probabilities.shape
    labels = np.tile(np.arange(k, dtype=np.float64), n)
    return evaluate(labels, np.repeat(scores, k, axis=0), probabilities.ravel(), task=task) | {"rows": float(n)}


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The quality of one version.

    Args:
        predictions: number of logged predictions.
        mature: predictions that are old enough to have most labels.
        labelled: predictions with a label.
        unusable: labels that are skipped because the task does not have them.
        effective: equally weighted labels that are worth the usable ones: fewer, if exploration weights them.
        units: entities with a usable label, as a rollout assigns them; rows of one unit may be correlated.
        metrics: metrics of labelled predictions, see ``evaluate``; None: no labels.
        interval: 95 % interval of the gate's metric; None: too few labels, or no formula for it.
        estimated: expected metrics of all predictions, see ``estimate_metrics``; None: the model has no probabilities.
        valued: predictions with a business value.
        value: mean business value; None: no values.
        value_interval: its 95 % interval.
    """

    version: str
    predictions: int
    mature: int
    labelled: int
    unusable: int
    effective: float
    units: int
    metrics: Metrics | None
    interval: Interval | None
    estimated: Metrics | None
    valued: int
    value: float | None
    value_interval: Interval | None

    @property
    def coverage(self) -> float:
        """Return the share of predictions with a label."""
        return self.labelled / self.predictions

    @property
    def maturity(self) -> float:
        """Return the share of predictions that are old enough to have most labels."""
        return self.mature / self.predictions

    def metric(self, name: str) -> float | None:
        """Return a metric of labelled predictions; None if it is undefined."""
        return None if self.metrics is None else self.metrics.get(name)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"coverage": self.coverage, "maturity": self.maturity}


def live_quality(
    rows: pa.Table,
    spec: ModelSpec,
    *,
    mature_until_us: int | None = None,
    calibrations: Mapping[str, Table] = MappingProxyType({}),
) -> list[Quality]:
    """Return the quality of each version on labelled predictions, in order of the versions.

    Args:
        rows: the result of ``LabelledLog.read``.
        spec: the model's spec.
        mature_until_us: predictions up to this time are mature; None: none are.
        calibrations: calibration table by version.
    """
    return [
        _quality(version, rows.filter(pc.field("version") == version), spec, mature_until_us, calibrations.get(version))
        for version in sorted(rows["version"].unique().to_pylist())
    ]


def _quality(
    version: str, rows: pa.Table, spec: ModelSpec, mature_until_us: int | None, calibration: Table | None
) -> Quality:
    labels, scores, weights = read_labels(rows), read_scores(rows), _read_weights(rows, spec)
    has_label, is_usable = ~np.isnan(labels), has_usable_label(labels, scores, spec)
    units, values = rows["unit"].to_numpy(), _to_floats(rows["value"])
    has_value = ~np.isnan(values)
    metrics = None
    if is_usable.any():
        # Rows of one request have one time, so the time identifies the query.
        groups = rows["t"].to_numpy()[is_usable] if spec.task == "ranking" else None
        metrics = evaluate(labels[is_usable], scores[is_usable], weights[is_usable], task=spec.task, groups=groups)
    return Quality(
        version=version,
        predictions=rows.num_rows,
        mature=0 if mature_until_us is None else rows.filter(pc.field("t") <= mature_until_us).num_rows,
        labelled=int(has_label.sum()),
        unusable=int((has_label & ~is_usable).sum()),
        effective=effective_size(weights[is_usable]),
        units=np.unique(units[is_usable]).size,
        metrics=metrics,
        interval=metric_interval(
            spec.gate.metric, labels[is_usable], scores[is_usable], units[is_usable], weights[is_usable]
        ),
        estimated=estimate_metrics(scores, spec.task, calibration),
        valued=int(has_value.sum()),
        value=float(values[has_value].mean()) if has_value.any() else None,
        value_interval=mean_interval(values[has_value], units[has_value]),
    )


def has_usable_label(labels: Vector, scores: Scores, spec: ModelSpec) -> npt.NDArray[np.bool_]:
    """Return the mask of labels that the task can have."""
    if spec.task == "binary":
        return np.isin(labels, (0.0, 1.0))
    if spec.task == "multiclass":
        return np.isin(labels, np.arange(scores.shape[1]))
    return ~np.isnan(labels)


def read_labels(rows: pa.Table) -> Vector:
    """Return the label of each row, NaN without one."""
    return _to_floats(rows["label"])


def _read_weights(rows: pa.Table, spec: ModelSpec) -> Vector:
    """Return the inverse propensity of each row, as in training; 1 for models that are not trained on outcomes."""
    labels = spec.labels
    if not isinstance(labels, Outcomes) or not labels.weighted:
        return np.ones(rows.num_rows)
    propensity = _to_floats(rows["propensity"])
    return np.where(np.isnan(propensity), 1.0, np.minimum(1.0 / np.maximum(propensity, 1e-300), labels.max_weight))


def read_scores(rows: pa.Table) -> Scores:
    """Return one score per row, or all scores of a model with several outputs."""
    if rows["scores"].null_count:
        return _to_floats(rows["score"])
    lists: Sequence[Sequence[float]] = rows["scores"].to_pylist()
    return np.array(lists, dtype=np.float64).reshape(len(lists), -1)


def _to_floats(column: pa.ChunkedArray) -> Vector:
    return np.asarray(pc.fill_null(column, np.nan).to_numpy(), dtype=np.float64)


def delay_quantile(delays: Int64Array, ages: Int64Array, quantile: float = QUANTILE) -> int | None:
    """Return the delay within which a share of the labels arrives; None without labels.

    Young predictions show only short delays (right truncation), so plain quantiles are too small. This is the
    reverse-time product-limit estimator (Lagakos, Barraj and De Gruttola, 1988): for each delay it estimates the share
    among the predictions that are old enough to show it. It cannot estimate delays longer than the largest age.

    Args:
        delays: ``(n,)`` from prediction to label, microseconds; negative ones count as 0.
        ages: ``(n,)`` of the same predictions now, at least their delays.
        quantile: the share, above 0 and at most 1.

    >>> delay_quantile(np.array([1, 1, 5, 5]), np.array([9, 9, 9, 9]), 0.5)
    1
    """
    if not delays.size:
        return None
    values, counts = np.unique(np.maximum(delays, 0), return_counts=True)
    at_most = np.searchsorted(np.sort(delays), values, side="right")
    younger = np.searchsorted(np.sort(ages), values, side="left")
    # At risk are the labels with at most this delay whose predictions are old enough to show it. A younger prediction
    # has a shorter delay, so it is in `at_most`, and is subtracted.
    hazard = counts / np.maximum(at_most - younger, counts)
    # Share of labels with a delay of at most each value: 1 reduced by the hazards of all longer delays.
    within = np.append(np.cumprod((1.0 - hazard)[:0:-1])[::-1], 1.0)
    # The product of the hazards may end slightly below the exact share, which would select the next delay.
    return int(values[np.searchsorted(within, quantile - _ROUNDING)])
