"""The section that shows a model's life at a glance: traffic, decisions and live quality over time."""

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
    from skewless.training.plots.series import Point
    from skewless.training.plots.version_history import DecisionMark, TrafficShares
    from skewless.workspace import Workspace

_TITLE = "Traffic and quality over time"


def life_section(project: Workspace, model: str, quality: QualityReport) -> Section:
    """Return the plot of who answered whom, what was decided, and how good each version was."""
    from skewless.infra.rollout.traffic import Traffic
    from skewless.operations.versions import list_all
    from skewless.training.plots.version_history import VersionHistory, history_plot

    found, history = list_all(project, model), Traffic(project.packages).history(model)
    shares = [*_aliased(found, history), *map(_shares, history)]
    if not shares:
        return Section(title=_TITLE, blocks=[Paragraph(text="No version was ever champion.", tone="missing")])
    points = _points(quality)
    tested = {version: metrics.get(quality.metric) for version, metrics in quality.trained.items()}
    plot = history_plot(
        VersionHistory(
            metric=quality.metric,
            versions=sorted(each.version for each in found.versions),
            shares=shares,
            marks=[*_trained(found), *_turns(history)],
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


def _aliased(found: VersionsReport, history: Sequence[TrafficPolicy]) -> Iterator[TrafficShares]:
    """Yield who was champion before there was a policy."""
    from skewless.training.plots.version_history import TrafficShares

    for move in reversed(found.moves):
        if move["alias"] == "champion" and (not history or move["at_us"] < history[0].since_us):
            yield TrafficShares(at_us=move["at_us"], of={move["to"]: 1.0})


def _shares(policy: TrafficPolicy) -> TrafficShares:
    from skewless.training.plots.version_history import TrafficShares

    if policy.challenger is None or policy.phase not in {"canary", "ab"}:
        return TrafficShares(at_us=policy.since_us, of={policy.champion: 1.0})
    return TrafficShares(
        at_us=policy.since_us, of={policy.champion: 1.0 - policy.share, policy.challenger: policy.share}
    )


def _trained(found: VersionsReport) -> Iterator[DecisionMark]:
    from skewless.training.plots.version_history import DecisionMark

    for each in found.versions:
        if each.trained_at is not None:
            yield DecisionMark(
                at_us=to_us(datetime.fromisoformat(each.trained_at)), event="trained", version=each.version
            )


def _turns(history: Sequence[TrafficPolicy]) -> Iterator[DecisionMark]:
    """Yield who became champion, and who had to go."""
    from skewless.training.plots.version_history import DecisionMark

    for before, policy in pairwise(history):
        change = change_of(before, policy)
        if change == "promoted":
            yield DecisionMark(at_us=policy.since_us, event="promoted", version=policy.champion)
        elif change == "rolled back":
            yield DecisionMark(at_us=policy.since_us, event="rolled back", version=before.challenger or before.champion)


def _points(quality: QualityReport) -> dict[str, list[Point]]:
    from skewless.training.plots.series import Point

    lines: dict[str, list[Point]] = {}
    for window in quality.windows:
        middle = (window.since_us + window.until_us) // 2
        for item in window.versions:
            value = item.metric(quality.metric)
            if value is not None:
                low, high = item.interval or (None, None)
                lines.setdefault(item.version, []).append(Point(at_us=middle, value=value, low=low, high=high))
    return lines
