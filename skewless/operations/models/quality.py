"""Live quality of a model's versions by outcomes, with the estimate without labels and the quality at training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.clock import from_us
from skewless.contract.errors import RequestError
from skewless.infra.models.packages.package import open_package
from skewless.infra.records.outcomes.label_rows import read_latest_labels
from skewless.infra.records.outcomes.labelled_log import LabelledLog
from skewless.infra.records.outcomes.log import OutcomeCounts, OutcomeLog
from skewless.validation.live_quality import Quality, delay_quantile, live_quality
from skewless.workspace import Workspace

_WINDOWS = 60  # most windows of a series


@dataclass(frozen=True, kw_only=True)
class QualityWindow:
    """The quality of each version in one window of time."""

    since_us: int
    until_us: int
    versions: list[Quality]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "since": from_us(self.since_us).isoformat(),
            "until": from_us(self.until_us).isoformat(),
            "versions": [quality.as_dict() for quality in self.versions],
        }


@dataclass(frozen=True, kw_only=True)
class QualityReport:
    """The quality of a model's versions.

    Args:
        metric: the gate's.
        whole: over the complete time.
        windows: its windows with predictions, in order.
        trained: version -> its metrics on the test period of its training.
        delay_us: time in which 90 % of the labels become known; None: no label is known.
        outcomes: counts of the feedback of all models.
    """

    model: str
    metric: str
    whole: QualityWindow
    windows: list[QualityWindow]
    trained: Mapping[str, Mapping[str, Any]]
    delay_us: int | None
    outcomes: OutcomeCounts

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "model": self.model,
            "metric": self.metric,
            **self.whole.as_dict(),
            "windows": [window.as_dict() for window in self.windows],
            "trained": {version: dict(metrics) for version, metrics in self.trained.items()},
            "label_delay_us": self.delay_us,
            "feedback": self.outcomes.as_dict(),
        }


def quality(
    project: Workspace, model: str | None = None, *, since_us: int | None = None, window_us: int | None = None
) -> QualityReport:
    """Return the quality of a model's versions, by the outcomes that are known now.

    Args:
        model: its name; None: the only one.
        since_us: time of the first prediction; None: 30 windows before now.
        window_us: length of the windows; None: from the model's ``Watch``.

    Raises:
        RequestError: the plan has no such model.
        RequestError: the time is empty, or has too many windows.
        StoreError: a log is corrupt.
    """
    spec, now = project.applied.model_or_only(model), project.clock.now_us()
    length = window_us or int(spec.watch.window.total_seconds() * 1e6)
    until = now + 1
    since = until - _WINDOWS // 2 * length if since_us is None else since_us
    _check_times(since, until, length)
    rows = labelled_log(project, spec.name).read(since_us=since, until_us=until, known_by_us=now)
    delay_us = label_delay_us(project, spec.name, rows, now)
    mature_until = None if delay_us is None else now - delay_us
    packages = [open_package(project.store, spec.name, version) for version in rows["version"].unique().to_pylist()]
    calibrations = {package.version: package.profile.get("calibration", ()) for package in packages}

    def measure(start: int, end: int) -> QualityWindow:
        part = rows.filter((pc.field("t") >= start) & (pc.field("t") < end))
        versions = live_quality(part, spec, mature_until_us=mature_until, calibrations=calibrations)
        return QualityWindow(since_us=start, until_us=end, versions=versions)

    return QualityReport(
        model=spec.name,
        metric=spec.gate.metric,
        whole=measure(since, until),
        windows=[part for start, end in _parts(since, until, length) if (part := measure(start, end)).versions],
        trained={package.version: package.metrics for package in packages},
        delay_us=delay_us,
        outcomes=OutcomeLog(project.state, project.connection).counts(now),
    )


def labelled_log(project: Workspace, model: str) -> LabelledLog:
    """Return the log of a model's predictions with their outcomes."""
    spec = project.applied.model(model)
    return LabelledLog(
        repo=project.repo,
        state=project.state,
        connection=project.connection,
        plan=project.applied.plan.select_service(spec.service),
        spec=spec,
    )


def label_delay_us(project: Workspace, model: str, rows: pa.Table | None, now_us: int) -> int | None:
    """Return the time after a prediction in which 90 % of the labels become known; None: no label is known.

    Args:
        rows: labelled predictions, counted together with the latest label rows; None: there are none.
        now_us: the clock; labels that become known later do not count.
    """
    times = read_latest_labels(labelled_log(project, model), now_us)
    if rows is not None:
        known = rows.filter(rows["label"].is_valid()).select(["t", "known_at"])
        times = pa.concat_tables([times, known])
    predicted_at, known_at = times["t"].to_numpy(), times["known_at"].to_numpy()
    return delay_quantile(known_at - predicted_at, now_us - predicted_at)


def _check_times(since: int, until: int, length: int) -> None:
    if since >= until:
        raise RequestError(
            "time of quality", "ends before it begins", value=from_us(since).isoformat(), fix="give an earlier --since"
        )
    if (until - since) / length > _WINDOWS:
        count = -(-(until - since) // length)
        raise RequestError("windows of quality", f"are more than {_WINDOWS}", value=count, fix="give a longer --window")


def _parts(since: int, until: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield adjacent windows; the first may be shorter."""
    first = until - (until - since - 1) // length * length
    edges = [since, *range(first, until + 1, length)]
    return pairwise(edges)
