"""How good each version of a model is on what it has been asked, as far as outcomes are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.spec import ModelSpec
from skewless.contract.status import Int64Array
from skewless.infra.runtimes.port import Scores, Vector
from skewless.validation.evaluation.estimated import Table, estimate
from skewless.validation.evaluation.evaluation import evaluate
from skewless.validation.evaluation.interval import Interval, mean_interval, metric_interval
from skewless.validation.evaluation.metrics import Metrics

By = Literal["version", "arm"]
_GROUPS: Mapping[By, list[str]] = {"version": ["version"], "arm": ["version", "role", "policy"]}
QUANTILE = 0.9
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The quality of one version, in one role under one policy if those were told apart.

    Args:
        predictions: that were logged.
        mature: of these, old enough for most labels to have come.
        labelled: of these, with a label.
        unusable: labels left out: they are none that the model knows.
        units: entities with a usable label, as a rollout draws them; intervals let rows of one vary together.
        metrics: of labelled predictions, see ``evaluate``; None: there are none.
        interval: 95 % interval of the gate's metric; None: too few, or no formula for it.
        estimated: metrics expected of all predictions, see ``estimate``; None: the model gives no probabilities.
        valued: predictions with a business value.
        value: mean business value; None: there is none.
        value_interval: its 95 % interval.
    """

    version: str
    role: str | None = None
    policy: int | None = None
    predictions: int
    mature: int
    labelled: int
    unusable: int
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
        """Return the share of predictions that are old enough for most labels to have come."""
        return self.mature / self.predictions

    def metric(self, name: str) -> float | None:
        """Return a metric of labelled predictions; None if it does not exist."""
        return None if self.metrics is None else self.metrics.get(name)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"coverage": self.coverage, "maturity": self.maturity}


def live_quality(
    rows: pa.Table,
    spec: ModelSpec,
    *,
    mature_until_us: int | None = None,
    calibrations: Mapping[str, Table] | None = None,
    by: By = "version",
) -> list[Quality]:
    """Return the quality of each version on labelled predictions, in order of the versions.

    Args:
        rows: what ``LabelledLog.read`` returns.
        spec: task, classes and gate of the model.
        mature_until_us: predictions up to this moment are mature; None: none is.
        calibrations: calibration table by version.
        by: ``version``, or ``arm``: version, role and policy.
    """
    names = _GROUPS[by]
    arms = rows.group_by(names).aggregate([]).sort_by([(name, "ascending") for name in names])
    return [
        _quality(arm, _of(rows, arm), spec, mature_until_us, (calibrations or {}).get(arm["version"]))
        for arm in arms.to_pylist()
    ]


def matured(rows: pa.Table, mature_until_us: int | None) -> pa.Table:
    """Return the predictions that are old enough for most labels to have come."""
    return rows.slice(0, 0) if mature_until_us is None else rows.filter(pc.field("t") <= mature_until_us)


def _of(rows: pa.Table, arm: Mapping[str, Any]) -> pa.Table:
    chosen = pc.scalar(True)  # noqa: FBT003 - Arrow's own signature
    for name, value in arm.items():
        chosen &= pc.field(name).is_null() if value is None else pc.field(name) == value
    return rows.filter(chosen)


def _quality(
    arm: Mapping[str, Any], rows: pa.Table, spec: ModelSpec, mature_until_us: int | None, calibration: Table | None
) -> Quality:
    labels, scores = _numbers(rows["label"]), _scores(rows)
    known, usable = ~np.isnan(labels), _usable(labels, scores, spec)
    units, values = rows["unit"].to_numpy(), _numbers(rows["value"])
    valued = ~np.isnan(values)
    queries = np.unique(rows["t"].to_numpy(), return_inverse=True)[1].astype(np.int64)  # one request has one time
    found = None
    if usable.any():
        groups = queries[usable] if spec.task == "ranking" else None
        found = evaluate(labels[usable], scores[usable], task=spec.task, groups=groups)
    return Quality(
        **arm,
        predictions=rows.num_rows,
        mature=matured(rows, mature_until_us).num_rows,
        labelled=int(known.sum()),
        unusable=int((known & ~usable).sum()),
        units=np.unique(units[usable]).size,
        metrics=found,
        interval=metric_interval(spec.gate.metric, labels[usable], scores[usable], units[usable]),
        estimated=estimate(scores, spec.task, calibration),
        valued=int(valued.sum()),
        value=float(values[valued].mean()) if valued.any() else None,
        value_interval=mean_interval(values[valued], units[valued]),
    )


def _usable(labels: Vector, scores: Scores, spec: ModelSpec) -> npt.NDArray[np.bool_]:
    """Return which labels are ones that the task has."""
    if spec.task == "binary":
        return np.isin(labels, (0.0, 1.0))
    if spec.task == "multiclass":
        return np.isin(labels, np.arange(scores.shape[1]))
    return ~np.isnan(labels)


def _scores(rows: pa.Table) -> Scores:
    """Return one score a row, or all of a model with several outputs."""
    if rows["scores"].null_count:
        return _numbers(rows["score"])
    lists: Sequence[Sequence[float]] = rows["scores"].to_pylist()
    return np.array(lists, dtype=np.float64).reshape(len(lists), -1)


def _numbers(column: pa.ChunkedArray) -> Vector:
    return np.asarray(pc.fill_null(column, np.nan).to_numpy(), dtype=np.float64)


def delay_quantile(delays: Int64Array, ages: Int64Array, quantile: float = QUANTILE) -> int | None:
    """Return the delay within which a share of the labels come; None without any.

    What is young shows its short delays only (right truncation): counting those would promise too much. This is the
    reverse-time product-limit estimator (Lagakos, Barraj and De Gruttola, 1988), which asks of each delay how often it
    was met among rows old enough to have shown it. Delays longer than any age are beyond it.

    Args:
        delays: ``(n,)`` from prediction to label, microseconds; negative ones count as 0.
        ages: ``(n,)`` of the same predictions now, at least their delays.
        quantile: the share, above 0 and at most 1.

    >>> delay_quantile(np.array([1, 1, 5, 5]), np.array([9, 9, 9, 9]), 0.5)
    1
    """
    if not delays.size:
        return None
    values, met = np.unique(np.maximum(delays, 0), return_counts=True)
    shown = np.searchsorted(np.sort(delays), values, side="right")
    young = np.searchsorted(np.sort(ages), values, side="left")
    hazard = met / np.maximum(shown - young, met)
    # Share of labels with a delay of at most each value: what is left of 1 after all longer ones.
    within = np.append(np.cumprod((1.0 - hazard)[:0:-1])[::-1], 1.0)
    return int(values[np.searchsorted(within, quantile - _ROUNDING)])
