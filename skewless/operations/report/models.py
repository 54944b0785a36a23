"""The sections about one model: its versions, drift, and what moves it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skewless.operations.report.blocks import Paragraph, PlotBlock, Section, TableBlock, Tone
from skewless.operations.report.cells import interval, moment, number, share

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
    "too_few_rows": ("too few to judge", "plain"),
}
_MOST_FEATURES, _MOST_LINES = 15, 6


def versions_section(project: Workspace, model: str, quality: QualityReport) -> Section:
    """Return each version with its share of the traffic and its quality, at training and live."""
    from skewless.infra.rollout.traffic import Traffic
    from skewless.operations.versions import read_versions

    found, policy = read_versions(project, model), Traffic(project.packages).get(model)
    live = {item.version: item for item in quality.whole.versions}
    champion = next((each.version for each in found.versions if "champion" in each.aliases), None)
    rows = [
        (
            each.version,
            moment(each.trained_at),
            role(each.version, policy, champion),
            share(traffic_share(each.version, policy, champion)),
            *_measured(live.get(each.version), (each.metrics or {}).get(found.metric), found.metric),
        )
        for each in found.versions
    ]
    columns = (
        *("version", "trained", "role", "traffic share", "test metric", "predictions", "labelled"),
        *("live metric", "95 % interval", "expected metric"),
    )
    return Section(
        title="Versions", blocks=[TableBlock(title=f"The gate's metric is {found.metric}.", columns=columns, rows=rows)]
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
    """Return what a version is in the policy in force, or by its alias where there is none."""
    if policy is None:
        return "champion" if version == champion else ""
    if version == policy.champion:
        return "champion"
    if version == policy.challenger and policy.phase in {"canary", "ab"}:
        return "challenger"
    return "shadow" if version in {policy.challenger, *policy.shadows} else ""


def traffic_share(version: str, policy: TrafficPolicy | None, champion: str | None) -> float:
    """Return which part of the entities a version answers."""
    held = role(version, policy, champion)
    if policy is None or policy.phase not in {"canary", "ab"}:
        return float(held == "champion")
    return {"champion": 1.0 - policy.share, "challenger": policy.share}.get(held, 0.0)


def drift_section(project: Workspace, model: str) -> Section:
    """Return the newest look at drift, and how it went before."""
    from skewless.operations.drift import drift_series
    from skewless.training.plots.series import Point, series_plot

    kept = drift_series(project, model).read()
    if not kept:
        text = f"Drift was never looked at: run `skewless drift {model}`."
        return Section(title="Drift", blocks=[Paragraph(text=text, tone="missing")])
    last = kept[-1]
    columns = ("feature", "PSI", "JS", "KS", "p", "missing in training", "missing now", "drifted")
    farthest = sorted(last["features"], key=lambda item: -(item["distances"]["psi"] or 0.0))[:_MOST_FEATURES]
    found = [item for item in (last["score"], last["label"]) if item] + farthest
    rows = [_drift_row(item) for item in found]
    marked = frozenset(i for i, item in enumerate(found) if item["drifted"])
    said, tone = _VERDICTS[last["verdict"]]
    verdict = f"{moment(last['since'])} to {moment(last['until'])}, {last['rows']:,} predictions of {last['version']}"
    blocks: list[Paragraph | TableBlock | PlotBlock] = [Paragraph(text=f"{verdict}: {said}", tone=tone)]
    if last["verdict"] != "too_few_rows":
        blocks.append(TableBlock(title="Live values against training", columns=columns, rows=rows, marked=marked))
    if len(kept) > 1:
        points = [Point(at_us=item["until_us"], value=item["share"]) for item in kept]
        caption = "Share of the features that had drifted in each window; from the dotted line on the model counts so."
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
    """Return what moved the champion's answers, window by window."""
    from skewless.operations.importance import importance
    from skewless.training.plots.series import Point, series_plot

    report = importance(project, model, window_us=window_us, windows=windows, sample=300)
    if not report.windows:
        text = "No prediction of these windows can be taken apart."
        return Section(title="What moved the answers", blocks=[Paragraph(text=text, tone="missing")])
    version = report.windows[-1].version
    own = [window for window in report.windows if window.version == version]
    lines = {
        name: [Point(at_us=window.since_us, value=window.mean[name]) for window in own]
        for name in list(own[-1].mean)[:_MOST_LINES]
    }
    caption = (
        f"Mean absolute contribution to the margin of version {version}, from up to 300 predictions a window: how far a"
        " feature moved the answer on average, up or down."
    )
    plot = series_plot("importance", "Importance over time", "contribution to the margin", caption, lines)
    return Section(title="What moved the answers", blocks=[plot_block(plot)])


def evaluation_section(package: Package) -> Section:
    """Return the plots of the champion's evaluation."""
    from skewless.training.plots.evaluation import evaluation_plots

    title = f"Evaluation of {package.version} on its test period"
    blocks: list[TableBlock | PlotBlock | Paragraph] = [_metrics(package)]
    blocks += [plot_block(plot) for plot in evaluation_plots(package.curves)]
    if not package.curves:
        blocks.append(Paragraph(text="The package holds no curves: it is of an older skewless.", tone="missing"))
    return Section(title=title, blocks=blocks)


def _metrics(package: Package) -> TableBlock:
    found = package.metrics
    rows = [
        (name, number(value), number(found.get(f"{_BASELINE}{name}")))
        for name, value in found.items()
        if not name.startswith(_BASELINE)
    ]
    return TableBlock(title="", columns=("metric", "model", "constant prediction"), rows=rows, terms="metric")


def plot_block(plot: Plot) -> PlotBlock:
    """Return a plot as a part of a report."""
    return PlotBlock(title=plot.title, caption=plot.caption, svg=plot.svg)
