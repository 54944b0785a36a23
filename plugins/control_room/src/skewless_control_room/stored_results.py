"""Results that the scheduler's runs have stored in the ledger: reading them costs nothing like measuring again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from skewless.contract.lifecycle import Watch
from skewless.contract.plain_record import PlainRecord
from skewless.contract.readable import duration_text
from skewless.contract.render import count_text
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.jobs.run import Run
from skewless.operations.models.triggers import is_beyond_chance
from skewless.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class StoredQuality(PlainRecord):
    """The result of the last successful run of a model's job ``quality``.

    Args:
        run: its id.
        measured_us: its end, UTC microseconds.
        metric: the gate's.
        since, until: the complete time, ISO 8601.
        versions: over the complete time, each as ``Quality.as_dict``; None: the result was too long to be stored.
        windows: as in ``QualityReport.as_dict``; None: the result was too long to be stored.
        trained: version -> its metrics on the test period of its training.
        label_delay_us: time in which 90 % of the labels become known; None: no label is known.
        failed: id of a later run that has failed; empty: there is none.
        error: of that run.
    """

    run: str
    measured_us: int
    metric: str
    since: str
    until: str
    versions: Sequence[Mapping[str, Any]] | None
    windows: Sequence[Mapping[str, Any]] | None
    trained: Mapping[str, Mapping[str, Any]]
    label_delay_us: int | None
    failed: str = ""
    error: str = ""


def read_quality(project: Workspace, model: str) -> StoredQuality | None:
    """Return the last stored quality of a model; None: no run has measured it.

    Raises:
        StoreError: the database is unavailable, or the run is corrupt.
    """
    job = f"quality {model}"
    latest = last_run(project, job)
    run = latest if latest is None or latest.state == "done" else last_run(project, job, "done")
    if run is None or "metric" not in run.outputs:
        return None
    failed = latest if latest is not None and latest.error is not None else None
    return StoredQuality(
        run=str(run.id),
        measured_us=run.ended_us or run.started_us,
        metric=str(run.outputs["metric"]),
        since=str(run.outputs["since"]),
        until=str(run.outputs["until"]),
        versions=run.outputs.get("versions"),
        windows=run.outputs.get("windows"),
        trained=run.outputs.get("trained") or {},
        label_delay_us=run.outputs.get("label_delay_us"),
        failed="" if failed is None else str(failed.id),
        error="" if failed is None else failed.error or "",
    )


@dataclass(frozen=True, kw_only=True)
class VersionQuality(PlainRecord):
    """The stored quality of one version, judged.

    Args:
        kind: ``good``: not worse than on the test period of its training, or chance explains it; ``warning``: worse;
            ``plain``: without an interval; ``unknown``: not measured, or not measurable yet.
        text: the same in words.
        value: the gate's metric on predictions with a known outcome; None: unknown.
        low, high: its 95 % interval.
        estimated: the metric that its scores let expect, without labels.
        tested: the metric on the test period of its training.
        maturity: share of the predictions that are old enough to have most labels.
    """

    version: str
    kind: Literal["good", "warning", "plain", "unknown"]
    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    estimated: float | None = None
    tested: float | None = None
    predictions: int | None = None
    labelled: int | None = None
    maturity: float | None = None


def judge_quality(stored: StoredQuality | None, version: str | None, watch: Watch, now_us: int) -> VersionQuality:
    """Return the stored quality of a version, and whether it is known."""
    name = version or ""
    if version is None:
        return VersionQuality(version=name, kind="unknown", text="no champion")
    if stored is None:
        return VersionQuality(version=name, kind="unknown", text="not measured yet")
    if stored.versions is None:
        return VersionQuality(version=name, kind="unknown", text="the result was too long to be stored")
    found = next((item for item in stored.versions if item["version"] == version), None)
    if found is None:
        return VersionQuality(version=name, kind="unknown", text="no prediction in the measured time")
    low, high = found["interval"] or (None, None)
    value = (found["metrics"] or {}).get(stored.metric)
    kind, text = _verdict(stored, watch, now_us, found, value)
    return VersionQuality(
        version=version,
        kind=kind,
        text=text,
        value=value,
        low=low,
        high=high,
        estimated=(found["estimated"] or {}).get(stored.metric),
        tested=(stored.trained.get(version) or {}).get(stored.metric),
        predictions=found["predictions"],
        labelled=found["labelled"],
        maturity=found["maturity"],
    )


def _verdict(
    stored: StoredQuality, watch: Watch, now_us: int, found: Mapping[str, Any], value: float | None
) -> tuple[Literal["good", "warning", "plain", "unknown"], str]:
    obstacle = _obstacle(stored, watch, now_us, found, value)
    tested = (stored.trained.get(found["version"]) or {}).get(stored.metric)
    if obstacle or value is None:
        return "unknown", obstacle
    if found["interval"] is None or tested is None:
        return "plain", "without an interval, so no verdict"
    if is_beyond_chance(stored.metric, value, tested, found["interval"]):
        return "warning", "worse than on its test period, beyond chance"
    return "good", "as on its test period, or within chance"


def _obstacle(stored: StoredQuality, watch: Watch, now_us: int, found: Mapping[str, Any], value: float | None) -> str:
    """Return why a stored quality gives no verdict about now; empty: it gives one."""
    labelled, age_s = found["labelled"], (now_us - stored.measured_us) / 1e6
    if not labelled:
        return f"no outcome of {count_text(found['predictions'], 'prediction')} is known yet"
    if value is None:
        return f"{stored.metric} is undefined on {count_text(labelled, 'label')}"
    if labelled < watch.least_rows:
        return f"{count_text(labelled, 'label')}; a verdict needs {watch.least_rows:,}"
    return f"measured {duration_text(age_s)} ago" if age_s > watch.window.total_seconds() else ""


def last_run(project: Workspace, job: str, state: str | None = None) -> Run | None:
    """Return the latest run of a job, in a state; None: there is none."""
    return next(iter(Ledger(project.state).read_latest_first(job, state=state, limit=1)), None)
