"""Parts of the pages about a model: traffic, quality, drift, importance, and the training report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from skewless.contract.clock import to_us
from skewless.contract.metrics import METRICS
from skewless.contract.plain_record import PlainRecord
from skewless.infra.models.packages.package import open_package, read_document
from skewless.operations.models.drift import drift_reports
from skewless.project import Project
from skewless_control_room.page import Unknown, read_part
from skewless_control_room.pages.models import DriftState, read_drift
from skewless_control_room.plots import TimeCurve
from skewless_control_room.prediction_counts import HOUR_US, count_predictions
from skewless_control_room.stored_results import StoredQuality, VersionQuality, judge_quality, read_quality

_MOST_CURVES = 6
_MOST_FEATURES = 15
_MOST_WINDOWS = 30
_MOST_VERSIONS = 10
_MOST_SLICES = 20
_COUNT_BUDGET_S = 0.1
_BASELINE = "baseline_"


@dataclass(frozen=True, kw_only=True)
class TrafficPart(PlainRecord):
    """Logged predictions over time.

    Args:
        since_us: all predictions from this time on are counted.
        is_complete: whether that is the beginning of the plot.
        bucket_hours: length of the buckets, in hours.
        totals: predictions by version and role, the most first.
        curves: predictions per bucket, at its start; the last bucket is not over.
    """

    since_us: int
    is_complete: bool
    bucket_hours: int
    totals: Sequence[tuple[str, int]]
    curves: Sequence[TimeCurve]


def read_traffic(project: Project, model: str, days: int, now_us: int) -> TrafficPart:
    """Return the logged predictions of a model over some days, by version and role."""
    bucket_hours = 1 if days <= 7 else 24  # noqa: PLR2004 - a week of hours is readable
    length = bucket_hours * HOUR_US
    first_us = now_us // length * length - days * 24 * HOUR_US + length
    counts = count_predictions(project.state, model, since_us=first_us, budget_s=_COUNT_BUDGET_S)
    buckets: Counter[tuple[str, int]] = Counter()
    totals: Counter[str] = Counter()
    for item, n in counts.hours.items():
        name = item.version if item.role != "shadow" else f"{item.version} as shadow"
        buckets[name, item.hour_us // length * length] += n
        totals[name] += n
    # A bucket that is counted in part would look like less traffic.
    times = range(-(-counts.since_us // length) * length, now_us + 1, length)
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    curves = [
        TimeCurve(name=name, times=list(times), values=[float(buckets[name, time]) for time in times])
        for name, _ in ordered[:_MOST_CURVES]
    ]
    return TrafficPart(
        since_us=counts.since_us,
        is_complete=counts.is_complete,
        bucket_hours=bucket_hours,
        totals=ordered,
        curves=curves,
    )


@dataclass(frozen=True, kw_only=True)
class QualityPart(PlainRecord):
    """The last stored quality.

    Args:
        stored: the result of the scheduler's run, without its numbers; None: no run has measured it.
        champion: quality of the champion.
        rows: quality of all versions of the result.
        curves: the metric by version in each window, with its interval, at the middle of the window.
        has_windows: whether the result was short enough for its windows to be stored.
        tested: the champion's metric on the test period of its training.
    """

    metric: str
    stored: Mapping[str, Any] | None
    champion: VersionQuality
    rows: Sequence[VersionQuality]
    curves: Sequence[TimeCurve]
    has_windows: bool
    tested: float | None


def read_quality_part(project: Project, model: str, champion: str | None, now_us: int) -> QualityPart:
    """Return the last stored quality of a model; nothing is measured."""
    spec, stored = project.applied.model(model), read_quality(project, model)
    facts = None if stored is None else {**vars(stored), "versions": None, "windows": None, "trained": None}
    versions = [] if stored is None else sorted(item["version"] for item in stored.versions or ())
    own = judge_quality(stored, champion, spec.watch, now_us)
    return QualityPart(
        metric=spec.gate.metric,
        stored=facts,
        champion=own,
        rows=[judge_quality(stored, version, spec.watch, now_us) for version in versions[::-1]],
        curves=[] if stored is None else _quality_curves(stored),
        has_windows=stored is not None and stored.windows is not None,
        tested=own.tested,
    )


def _quality_curves(stored: StoredQuality) -> list[TimeCurve]:
    points: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for window in stored.windows or ():
        middle = (_time_us(window["since"]) + _time_us(window["until"])) // 2
        for item in window["versions"]:
            points.setdefault(item["version"], []).append((middle, item))
    return [
        TimeCurve(
            name=version,
            times=[at_us for at_us, _ in own],
            values=[(item["metrics"] or {}).get(stored.metric) for _, item in own],
            low=[(item["interval"] or (None, None))[0] for _, item in own],
            high=[(item["interval"] or (None, None))[1] for _, item in own],
        )
        for version, own in sorted(points.items(), reverse=True)[:_MOST_CURVES]
    ]


def _time_us(text: str) -> int:
    return to_us(datetime.fromisoformat(text))


@dataclass(frozen=True, kw_only=True)
class DriftPart(PlainRecord):
    """The last stored drift.

    Args:
        report: the last report without its features; None: there is none.
        features: those with the largest PSI, after score and label, each as ``ColumnDrift.as_dict``.
        total: number of features.
        curve: share of drifted features in the last windows, at their end.
        limit: share from which the model has drifted.
    """

    state: DriftState
    report: Mapping[str, Any] | None
    features: Sequence[Mapping[str, Any]]
    total: int
    curve: TimeCurve
    limit: float | None


def read_drift_part(project: Project, model: str, champion: str | None, now_us: int) -> DriftPart:
    """Return the last stored drift of a model; nothing is measured."""
    spec = project.applied.model(model)
    state, reports = (
        read_drift(project, model, champion, spec.watch, now_us),
        drift_reports(project, model, _MOST_WINDOWS),
    )
    curve = TimeCurve(
        name="share of drifted features",
        times=[item["until_us"] for item in reports],
        values=[None if item["verdict"] == "too_few_rows" else item["share"] for item in reports],
    )
    if not reports:
        return DriftPart(state=state, report=None, features=(), total=0, curve=curve, limit=None)
    last = reports[-1]
    farthest = sorted(last["features"], key=lambda item: -(item["distances"]["psi"] or 0.0))[:_MOST_FEATURES]
    return DriftPart(
        state=state,
        report={name: value for name, value in last.items() if name not in {"features", "score", "label", "drifted"}},
        features=[item for item in (last["score"], last["label"]) if item] + farthest,
        total=len(last["features"]),
        curve=curve,
        limit=last["limit_share"],
    )


@dataclass(frozen=True, kw_only=True)
class ImportancePart(PlainRecord):
    """The importance of features from training to training.

    Args:
        curves: share of the gain of the latest version's most important features, at the time of each training.
        versions: whose packages were read, the latest first.
        unreadable: versions whose packages cannot be read, or have no importance.
    """

    curves: Sequence[TimeCurve]
    versions: Sequence[str]
    unreadable: Sequence[str]


def read_importance(project: Project, model: str) -> ImportancePart:
    """Return the importance of features in the latest versions."""
    versions = project.packages.list_versions(model)[-_MOST_VERSIONS:]
    shares: dict[int, dict[str, float]] = {}
    readable = []
    for version in versions:
        about = read_part(partial(read_document, project.store, model, version, "about"))
        gain = {} if isinstance(about, Unknown) else about.value.get("importance") or {}
        total = sum(gain.values())
        if isinstance(about, Unknown) or not total:
            continue
        readable.append(version)
        shares[int(about.value["as_of_us"])] = {name: value / total for name, value in gain.items()}
    times = sorted(shares)
    top = sorted(shares[times[-1]].items(), key=lambda item: (-item[1], item[0]))[:_MOST_CURVES] if times else []
    return ImportancePart(
        curves=[
            TimeCurve(name=name, times=times, values=[shares[time].get(name) for time in times]) for name, _ in top
        ],
        versions=readable[::-1],
        unreadable=[version for version in versions if version not in readable],
    )


@dataclass(frozen=True, kw_only=True)
class MetricRow(PlainRecord):
    """A metric on the test period: of the version, and of a constant prediction."""

    name: str
    value: float | None
    constant: float | None
    words: str


@dataclass(frozen=True, kw_only=True)
class TrainingPart(PlainRecord):
    """The training report of a version.

    Args:
        trained_at: ISO 8601.
        train_rows, test_rows: numbers of rows.
        metrics: on the test period of its training.
        curves: as in its package; see ``skewless.training.curves``.
        slices: gains in slices of the test rows by the last decision of the gate, the worst first.
    """

    version: str
    trained_at: str | None
    train_rows: int | None
    test_rows: int | None
    metrics: Sequence[MetricRow]
    curves: Mapping[str, Any]
    slices: Sequence[Mapping[str, Any]]


def read_training(project: Project, model: str, version: str) -> TrainingPart:
    """Return the training report of a version, from its verified package.

    Raises:
        PackageError: the version does not exist, or was altered.
    """
    package = open_package(project.store, model, version)
    records = project.store.decisions.read_latest_first(model)
    decision = next((item for item in records if item["version"] == version), {})
    metrics = package.metrics
    return TrainingPart(
        version=version,
        trained_at=package.about.get("trained_at"),
        train_rows=package.fingerprint.get("train_rows"),
        test_rows=package.fingerprint.get("test_rows"),
        metrics=[
            MetricRow(
                name=name,
                value=value,
                constant=metrics.get(f"{_BASELINE}{name}"),
                words=METRICS[name].words if name in METRICS else "",
            )
            for name, value in metrics.items()
            if not name.startswith(_BASELINE)
        ],
        curves=package.curves,
        slices=(decision.get("slices") or [])[:_MOST_SLICES],
    )
