"""The sections of a report: versions, drift, importance and evaluation of a model; proofs and runs of the project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from skewless.contract.plan import View
from skewless.contract.render import count_text
from skewless.infra.alerts.alerts import Alerts
from skewless.infra.jobs.run import Run
from skewless.infra.packages.package import Package
from skewless.infra.verdicts.last_verdicts import LastParity, read_last
from skewless.operations.drift import drift_reports
from skewless.operations.freshness import read_newest_us
from skewless.operations.importance import importance as read_importance
from skewless.operations.model_history import role, traffic_share
from skewless.operations.quality import QualityReport
from skewless.operations.report.blocks import Block, Paragraph, PlotBlock, TableBlock, Tone, missing
from skewless.operations.report.cells import NONE, duration, figures, interval, number, share, time
from skewless.operations.runs import Runs
from skewless.operations.versions import read_versions
from skewless.training.constraints import constraint_rows
from skewless.training.plots.canvas import Plot, Point, series_plot
from skewless.training.plots.evaluation import evaluation_plots
from skewless.validation.data_docs import INDEX, data_docs_folder
from skewless.validation.live_quality import Quality
from skewless.workspace import Workspace

_BASELINE = "baseline_"
_VERDICTS: Mapping[str, tuple[str, Tone]] = {
    "drifted": ("drifted", "bad"),
    "steady": ("no drift", "good"),
    "too_few_rows": ("too few predictions", "plain"),
}
_MOST_FEATURES, _MOST_LINES = 15, 6


def versions(project: Workspace, model: str, quality: QualityReport) -> Iterator[Block]:
    """Yield each version with its share of the traffic and its quality, at training and live."""
    report, policy = read_versions(project, model), project.store.traffic.get(model)
    live = {item.version: item for item in quality.whole.versions}
    champion = next((item.version for item in report.versions if "champion" in item.aliases), None)
    rows = [
        (
            item.version,
            time(item.trained_at),
            role(item.version, policy, champion),
            share(traffic_share(item.version, policy, champion)),
            *_measured(live.get(item.version), (item.metrics or {}).get(report.metric), report.metric),
        )
        for item in report.versions
    ]
    columns = (
        *("version", "trained", "role", "traffic share", "test metric", "predictions", "labelled"),
        *("live metric", "95 % interval", "expected metric"),
    )
    yield TableBlock(title=f"The gate's metric is {report.metric}.", columns=columns, rows=rows)


def _measured(live: Quality | None, tested: float | None, metric: str) -> tuple[str, ...]:
    if live is None:
        return (number(tested), "0", *[number(None)] * 4)
    expected = None if live.estimated is None else live.estimated.get(metric)
    return (
        number(tested),
        f"{live.predictions:,}",
        share(live.coverage),
        number(live.metric(metric)),
        interval(live.interval),
        number(expected),
    )


def drift(project: Workspace, model: str) -> Iterator[Block]:
    """Yield the latest drift report, and the share of drifted features over time."""
    reports = drift_reports(project, model)
    if not reports:
        yield missing(f"The model has no drift report: run `skewless drift {model}`.")
        return
    last = reports[-1]
    columns = ("feature", "PSI", "JS", "KS", "p", "missing in training", "missing now", "drifted")
    farthest = sorted(last["features"], key=lambda item: -(item["distances"]["psi"] or 0.0))[:_MOST_FEATURES]
    columns_shown = [item for item in (last["score"], last["label"]) if item] + farthest
    rows = [_drift_row(item) for item in columns_shown]
    marked = frozenset(i for i, item in enumerate(columns_shown) if item["drifted"])
    text, tone = _VERDICTS[last["verdict"]]
    verdict = (
        f"{time(last['since'])} to {time(last['until'])}, {count_text(last['rows'], 'prediction')} of {last['version']}"
    )
    yield Paragraph(text=f"{verdict}: {text}", tone=tone)
    if last["verdict"] != "too_few_rows":
        yield TableBlock(title="Live values against training", columns=columns, rows=rows, marked=marked)
    if len(reports) > 1:
        points = [Point(at_us=item["until_us"], value=item["share"]) for item in reports]
        caption = "Share of drifted features in each window; above the dotted line, the model has drifted."
        plot = series_plot(
            "drift", "Drift over time", "share of features", caption, {"drifted": points}, level=last["limit_share"]
        )
        yield _plot_block(plot)


def _drift_row(item: Mapping[str, Any]) -> tuple[str, ...]:
    distances, nulls = item["distances"], item["null_share"]
    return (
        item["name"],
        *(number(distances.get(name)) for name in ("psi", "js", "ks")),
        number(item["p"]),
        *(share(value) for value in nulls),
        "yes" if item["drifted"] else "no",
    )


def importance(project: Workspace, model: str, window_us: int, windows: int) -> Iterator[Block]:
    """Yield the champion's feature importance, window by window."""
    report = read_importance(project, model, window_us=window_us, windows=windows, sample=300)
    if not report.windows:
        yield missing("These windows have no prediction that can be explained.")
        return
    version = report.windows[-1].version
    own = [window for window in report.windows if window.version == version]
    lines = {
        name: [Point(at_us=window.since_us, value=window.mean[name]) for window in own]
        for name in list(own[-1].mean)[:_MOST_LINES]
    }
    caption = f"Mean absolute contribution to the margin of version {version}, from up to 300 predictions per window."
    plot = series_plot("importance", "Importance over time", "contribution to the margin", caption, lines)
    yield _plot_block(plot)


def evaluation(package: Package) -> Iterator[Block]:
    """Yield the metrics and the plots of the champion's evaluation."""
    metrics = package.metrics
    rows = [
        (name, number(value), number(metrics.get(f"{_BASELINE}{name}")))
        for name, value in metrics.items()
        if not name.startswith(_BASELINE)
    ]
    yield TableBlock(title="", columns=("metric", "model", "constant prediction"), rows=rows, terms="metric")
    constraints = constraint_rows(package.about)
    if constraints:
        yield TableBlock(title="Constraints", columns=("feature", "constraint"), rows=constraints)
    yield from map(_plot_block, evaluation_plots(package.curves))
    if not package.curves:
        yield missing("The package has no curves, because an older skewless wrote it.")


def _plot_block(plot: Plot) -> PlotBlock:
    return PlotBlock(title=plot.title, caption=plot.caption, svg=plot.svg)


_MOST_RUNS, _MOST_ALERTS, _LONGEST_RESULT = 25, 20, 160


def freshness(project: Workspace) -> Iterator[Block]:
    """Yield the age of the latest accepted row of each view, with its declared limit."""
    ledger, now = project.views.ledger, project.clock.now_us()
    rows, marked = [], set[int]()
    for i, view in enumerate(project.applied.plan.all_views):
        latest = read_newest_us(project, view)
        age = None if latest is None else now - latest
        limit = view.freshness_us or None
        if age is not None and limit is not None and age > limit:
            marked.add(i)
        last_end_us = ledger.last_end_us(view.partition) if isinstance(view, View) else None
        rows.append((view.name, time(latest), duration(age), duration(limit), time(last_end_us)))
    columns = ("view", "latest row", "age", "freshness limit", "last run")
    table = TableBlock(title="", columns=columns, rows=rows, marked=frozenset(marked))
    yield table if rows else missing("No view is materialized.")


def proof(project: Workspace) -> Iterator[Block]:
    """Yield the last verdicts of parity and replay."""
    yield _replay_note(project)
    items = list(read_last(project.state, LastParity).values())
    if not items:
        yield missing("The project has no parity run yet: run `skewless parity`.")
        return
    rows = [(item.view, time(item.at_us), f"{item.compared:,}", f"{item.mismatches:,}") for item in items]
    marked = frozenset(i for i, item in enumerate(items) if item.mismatches)
    good = "Parity: the online store and the log are equal, bit for bit."
    yield Paragraph(text="Parity found mismatches.", tone="bad") if marked else Paragraph(text=good, tone="good")
    columns = ("view", "time", "compared", "mismatches")
    yield TableBlock(title="Parity", columns=columns, rows=rows, marked=marked)


def _replay_note(project: Workspace) -> Paragraph:
    runs = [run for run in Runs(project).list("replay", limit=5) if run.ended_us is not None]
    if not runs:
        return missing("The project has no scheduled replay yet: run `skewless replay`.")
    last = runs[-1]
    lines = last.outputs.get("lines")
    text = lines[0] if isinstance(lines, list) and lines else last.error or _result(last.outputs)
    is_good = last.state == "done" and last.outputs.get("ok", True)
    return Paragraph(text=f"Replay of {time(last.ended_us)}: {text}", tone="good" if is_good else "bad")


def checks(project: Workspace) -> Iterator[Block]:
    """Yield the link to the last recorded validation."""
    index = data_docs_folder(project.state) / INDEX
    if index.exists():
        yield Paragraph(text="Data Docs of the last validation", link=index.resolve().as_uri())
    else:
        yield missing(
            "The project has no Data Docs yet: the scheduled validation and `skewless validate --record` write them."
        )


def alerts(project: Workspace) -> Iterator[Block]:
    """Yield open alerts, then the latest resolved alerts."""
    with Alerts(project.state) as store:
        records = store.records()
    latest = sorted(records, key=lambda item: (not item.is_open, -item.since_us))[:_MOST_ALERTS]
    rows = [
        (
            *(item.alert.name, item.alert.subject, time(item.since_us)),
            *("open" if item.is_open else f"resolved {time(item.resolved_at_us)}", item.alert.message),
        )
        for item in latest
    ]
    columns = ("alert", "subject", "since", "state", "message")
    marked = frozenset(i for i, item in enumerate(latest) if item.is_open)
    table = TableBlock(title="", columns=columns, rows=rows, marked=marked)
    yield table if rows else Paragraph(text="The project has no alerts.", tone="good")


def runs(project: Workspace) -> Iterator[Block]:
    """Yield the latest runs of the scheduler, the latest first."""
    latest = Runs(project).list(limit=_MOST_RUNS)[::-1]
    marked = frozenset(i for i, run in enumerate(latest) if run.error)
    columns = ("time", "job", "cause", "state", "took", "result")
    table = TableBlock(title="", columns=columns, rows=[_run_row(run) for run in latest], marked=marked)
    yield table if latest else missing("The project has no scheduled runs yet.")


def _run_row(run: Run) -> tuple[str, ...]:
    took = NONE if run.seconds is None else duration(round(run.seconds * 1e6))
    return time(run.started_us), run.id.job, run.cause, run.state, took, run.error or _result(run.outputs)


def _result(outputs: Mapping[str, Any]) -> str:
    text = figures({name: value for name, value in outputs.items() if not isinstance(value, list)})
    return text if len(text) <= _LONGEST_RESULT else f"{text[:_LONGEST_RESULT]} ..."
