"""The sections on one model: versions, drift, importance and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skewless.contract.render import count_text
from skewless.operations.report.blocks import Paragraph, PlotBlock, Section, TableBlock, Tone
from skewless.operations.report.cells import interval, number, share, time

if TYPE_CHECKING:
    from skewless.contract.traffic import TrafficPolicy
    from skewless.infra.packages.package import Package
    from skewless.operations.quality import QualityReport
    from skewless.training.plots.canvas import Plot
    from skewless.validation.live_quality import Quality
    from skewless.workspace import Workspace

_BASELINE = "baseline_"
_VERDICTS: Mapping[str, tuple[str, Tone]] = {
    "drifted": ("drifted", "bad"),
    "steady": ("no drift", "good"),
    "too_few_rows": ("too few predictions", "plain"),
}
_MOST_FEATURES, _MOST_LINES = 15, 6


def versions_section(project: Workspace, model: str, quality: QualityReport) -> Section:
    """Return each version with its share of the traffic and its quality, at training and live."""
    from skewless.operations.versions import read_versions

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
    return Section(
        title="Versions",
        blocks=[TableBlock(title=f"The gate's metric is {report.metric}.", columns=columns, rows=rows)],
    )


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


def role(version: str, policy: TrafficPolicy | None, champion: str | None) -> str:
    """Return the role of a version by the current policy, or by its alias without a policy."""
    if policy is None:
        return "champion" if version == champion else ""
    if version == policy.champion:
        return "champion"
    if version == policy.challenger and policy.phase in {"canary", "ab"}:
        return "challenger"
    return "shadow" if version in {policy.challenger, *policy.shadows} else ""


def traffic_share(version: str, policy: TrafficPolicy | None, champion: str | None) -> float:
    """Return the share of the entities that a version answers."""
    own_role = role(version, policy, champion)
    if policy is None or policy.phase not in {"canary", "ab"}:
        return float(own_role == "champion")
    return {"champion": 1.0 - policy.share, "challenger": policy.share}.get(own_role, 0.0)


def drift_section(project: Workspace, model: str) -> Section:
    """Return the latest drift report, and the share of drifted features over time."""
    from skewless.operations.drift import drift_reports
    from skewless.training.plots.canvas import Point, series_plot

    reports = drift_reports(project, model)
    if not reports:
        text = f"The model has no drift report: run `skewless drift {model}`."
        return Section(title="Drift", blocks=[Paragraph(text=text, tone="missing")])
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
    blocks: list[Paragraph | TableBlock | PlotBlock] = [Paragraph(text=f"{verdict}: {text}", tone=tone)]
    if last["verdict"] != "too_few_rows":
        blocks.append(TableBlock(title="Live values against training", columns=columns, rows=rows, marked=marked))
    if len(reports) > 1:
        points = [Point(at_us=item["until_us"], value=item["share"]) for item in reports]
        caption = "Share of drifted features in each window; above the dotted line, the model has drifted."
        plot = series_plot(
            "drift", "Drift over time", "share of features", caption, {"drifted": points}, level=last["limit_share"]
        )
        blocks.append(plot_block(plot))
    return Section(title="Drift", blocks=blocks)


def _drift_row(item: Mapping[str, Any]) -> tuple[str, ...]:
    distances, nulls = item["distances"], item["null_share"]
    return (
        item["name"],
        *(number(distances.get(name)) for name in ("psi", "js", "ks")),
        number(item["p"]),
        *(share(value) for value in nulls),
        "yes" if item["drifted"] else "no",
    )


def importance_section(project: Workspace, model: str, window_us: int, windows: int) -> Section:
    """Return the champion's feature importance, window by window."""
    from skewless.operations.importance import importance
    from skewless.training.plots.canvas import Point, series_plot

    report = importance(project, model, window_us=window_us, windows=windows, sample=300)
    if not report.windows:
        text = "These windows have no prediction that can be explained."
        return Section(title="Feature importance", blocks=[Paragraph(text=text, tone="missing")])
    version = report.windows[-1].version
    own = [window for window in report.windows if window.version == version]
    lines = {
        name: [Point(at_us=window.since_us, value=window.mean[name]) for window in own]
        for name in list(own[-1].mean)[:_MOST_LINES]
    }
    caption = f"Mean absolute contribution to the margin of version {version}, from up to 300 predictions per window."
    plot = series_plot("importance", "Importance over time", "contribution to the margin", caption, lines)
    return Section(title="Feature importance", blocks=[plot_block(plot)])


def evaluation_section(package: Package) -> Section:
    """Return the plots of the champion's evaluation."""
    from skewless.training.plots.evaluation import evaluation_plots

    title = f"Evaluation of {package.version} on its test period"
    blocks: list[TableBlock | PlotBlock | Paragraph] = [_metrics(package)]
    blocks += [plot_block(plot) for plot in evaluation_plots(package.curves)]
    if not package.curves:
        blocks.append(Paragraph(text="The package has no curves, because an older skewless wrote it.", tone="missing"))
    return Section(title=title, blocks=blocks)


def _metrics(package: Package) -> TableBlock:
    metrics = package.metrics
    rows = [
        (name, number(value), number(metrics.get(f"{_BASELINE}{name}")))
        for name, value in metrics.items()
        if not name.startswith(_BASELINE)
    ]
    return TableBlock(title="", columns=("metric", "model", "constant prediction"), rows=rows, terms="metric")


def plot_block(plot: Plot) -> PlotBlock:
    """Return a plot as a part of a report."""
    return PlotBlock(title=plot.title, caption=plot.caption, svg=plot.svg)
