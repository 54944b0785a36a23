"""The history of a model: its traffic and quality over time, and the decisions about it with their evidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise

from skewless.contract.clock import to_us
from skewless.contract.traffic import TrafficPolicy
from skewless.operations.model_history import ModelDecision, change_of, read_decisions
from skewless.operations.quality import QualityReport
from skewless.operations.report.blocks import Block, FoldedCell, PlotBlock, TableBlock, missing
from skewless.operations.report.cells import (
    BREACHED,
    GUARDRAIL_COLUMNS,
    HELD,
    OPEN,
    figures,
    guardrail_cells,
    time,
)
from skewless.operations.versions import VersionsReport, read_versions
from skewless.training.plots.canvas import Point
from skewless.training.plots.version_history import DecisionMark, TrafficShares, VersionHistory, history_plot
from skewless.workspace import Workspace

_MOST = 60


def decisions(project: Workspace, model: str) -> Iterator[Block]:
    """Yield the decisions about a model, the latest first: by its gate, by its rollouts, and by hand."""
    rows = [
        (time(item.at_us), item.change, item.to, item.cause, _evidence_cell(item))
        for item in read_decisions(project, model, most=_MOST)
    ]
    if not rows:
        yield missing("The model has no decisions yet.")
        return
    columns = ("time", "change", "to", "cause", "evidence")
    marked = frozenset(i for i, row in enumerate(rows) if row[1] in {"refused", "rolled back"})
    yield TableBlock(title="", columns=columns, rows=rows, marked=marked, terms="change")


def _evidence_cell(decision: ModelDecision) -> str | FoldedCell:
    """Return the evidence of a decision: a row per guardrail, the rest in a line."""
    rest = figures(decision.evidence)
    if not decision.guardrails:
        return rest
    rows = [guardrail_cells(verdict) for verdict in decision.guardrails]
    marked = frozenset(i for i, row in enumerate(rows) if row[-1] == BREACHED)
    table = TableBlock(title=rest, columns=GUARDRAIL_COLUMNS, rows=rows, marked=marked, terms="guardrail")
    return FoldedCell(summary=_counted([row[-1] for row in rows]), table=table)


def _counted(outcomes: Sequence[str]) -> str:
    """Return the number of guardrails by outcome, the worst first."""
    counts = {outcome: outcomes.count(outcome) for outcome in (BREACHED, HELD, OPEN)}
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)


def life(project: Workspace, model: str, quality: QualityReport) -> Iterator[Block]:
    """Yield the plot of each version's traffic share, decisions and quality."""
    versions, history = read_versions(project, model), project.store.traffic.history(model)
    shares = [*_alias_shares(versions, history), *map(_shares, history)]
    if not shares:
        yield missing("The model had no champion yet.")
        return
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
    yield PlotBlock(title=plot.title, caption=plot.caption, svg=plot.svg, is_broad=True)
    if not points:
        yield missing("No prediction of these windows has an outcome yet.")


def _alias_shares(report: VersionsReport, history: Sequence[TrafficPolicy]) -> Iterator[TrafficShares]:
    """Yield the champions before the first traffic policy."""
    for move in reversed(report.moves):
        if move["alias"] == "champion" and (not history or move["at_us"] < history[0].since_us):
            yield TrafficShares(at_us=move["at_us"], of={move["to"]: 1.0})


def _shares(policy: TrafficPolicy) -> TrafficShares:
    if policy.challenger is None or policy.phase not in {"canary", "ab"}:
        return TrafficShares(at_us=policy.since_us, of={policy.champion: 1.0})
    return TrafficShares(
        at_us=policy.since_us, of={policy.champion: 1.0 - policy.share, policy.challenger: policy.share}
    )


def _training_marks(report: VersionsReport) -> Iterator[DecisionMark]:
    for version in report.versions:
        if version.trained_at is not None:
            yield DecisionMark(
                at_us=to_us(datetime.fromisoformat(version.trained_at)), event="trained", version=version.version
            )


def _policy_marks(history: Sequence[TrafficPolicy]) -> Iterator[DecisionMark]:
    """Yield promotions and rollbacks."""
    for before, policy in pairwise(history):
        change = change_of(before, policy)
        if change == "promoted":
            yield DecisionMark(at_us=policy.since_us, event="promoted", version=policy.champion)
        elif change == "rolled back":
            yield DecisionMark(at_us=policy.since_us, event="rolled back", version=before.challenger or before.champion)


def _points(quality: QualityReport) -> dict[str, list[Point]]:
    lines: dict[str, list[Point]] = {}
    for window in quality.windows:
        middle = (window.since_us + window.until_us) // 2
        for item in window.versions:
            value = item.metric(quality.metric)
            if value is not None:
                low, high = item.interval or (None, None)
                lines.setdefault(item.version, []).append(Point(at_us=middle, value=value, low=low, high=high))
    return lines
