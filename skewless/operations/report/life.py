"""The section on the history of a model: traffic, decisions and live quality over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from skewless.contract.clock import to_us
from skewless.operations.report.blocks import Paragraph, PlotBlock, Section
from skewless.operations.report.decisions import change_of

if TYPE_CHECKING:
    from skewless.contract.traffic import TrafficPolicy
    from skewless.operations.quality import QualityReport
    from skewless.operations.versions import VersionsReport
    from skewless.training.plots.canvas import Point
    from skewless.training.plots.version_history import DecisionMark, TrafficShares
    from skewless.workspace import Workspace

_TITLE = "Traffic and quality over time"


def life_section(project: Workspace, model: str, quality: QualityReport) -> Section:
    """Return the plot of each version's traffic share, decisions and quality."""
    from skewless.operations.versions import read_versions
    from skewless.training.plots.version_history import VersionHistory, history_plot

    versions, history = read_versions(project, model), project.store.traffic.history(model)
    shares = [*_alias_shares(versions, history), *map(_shares, history)]
    if not shares:
        return Section(title=_TITLE, blocks=[Paragraph(text="The model had no champion yet.", tone="missing")])
    points = _points(quality)
    tested = {version: metrics.get(quality.metric) for version, metrics in quality.trained.items()}
    plot = history_plot(
        VersionHistory(
            metric=quality.metric,
            versions=sorted(item.version for item in versions.versions),
            shares=shares,
            marks=[*_training_marks(versions), *_policy_marks(history)],
            until_us=project.clock.now_us(),
            quality=points,
            tested={version: value for version, value in tested.items() if value is not None},
        )
    )
    blocks: list[PlotBlock | Paragraph] = [
        PlotBlock(title=plot.title, caption=plot.caption, svg=plot.svg, is_broad=True)
    ]
    if not points:
        blocks.append(Paragraph(text="No prediction of these windows has an outcome yet.", tone="missing"))
    return Section(title=_TITLE, blocks=blocks)


def _alias_shares(report: VersionsReport, history: Sequence[TrafficPolicy]) -> Iterator[TrafficShares]:
    """Yield the champions before the first traffic policy."""
    from skewless.training.plots.version_history import TrafficShares

    for move in reversed(report.moves):
        if move["alias"] == "champion" and (not history or move["at_us"] < history[0].since_us):
            yield TrafficShares(at_us=move["at_us"], of={move["to"]: 1.0})


def _shares(policy: TrafficPolicy) -> TrafficShares:
    from skewless.training.plots.version_history import TrafficShares

    if policy.challenger is None or policy.phase not in {"canary", "ab"}:
        return TrafficShares(at_us=policy.since_us, of={policy.champion: 1.0})
    return TrafficShares(
        at_us=policy.since_us, of={policy.champion: 1.0 - policy.share, policy.challenger: policy.share}
    )


def _training_marks(report: VersionsReport) -> Iterator[DecisionMark]:
    from skewless.training.plots.version_history import DecisionMark

    for version in report.versions:
        if version.trained_at is not None:
            yield DecisionMark(
                at_us=to_us(datetime.fromisoformat(version.trained_at)), event="trained", version=version.version
            )


def _policy_marks(history: Sequence[TrafficPolicy]) -> Iterator[DecisionMark]:
    """Yield promotions and rollbacks."""
    from skewless.training.plots.version_history import DecisionMark

    for before, policy in pairwise(history):
        change = change_of(before, policy)
        if change == "promoted":
            yield DecisionMark(at_us=policy.since_us, event="promoted", version=policy.champion)
        elif change == "rolled back":
            yield DecisionMark(at_us=policy.since_us, event="rolled back", version=before.challenger or before.champion)


def _points(quality: QualityReport) -> dict[str, list[Point]]:
    from skewless.training.plots.canvas import Point

    lines: dict[str, list[Point]] = {}
    for window in quality.windows:
        middle = (window.since_us + window.until_us) // 2
        for item in window.versions:
            value = item.metric(quality.metric)
            if value is not None:
                low, high = item.interval or (None, None)
                lines.setdefault(item.version, []).append(Point(at_us=middle, value=value, low=low, high=high))
    return lines
