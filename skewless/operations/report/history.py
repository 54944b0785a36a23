"""The history of a model: its traffic and quality over time, and the decisions about it with their evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from skewless.contract.clock import to_us
from skewless.contract.traffic import TrafficPolicy
from skewless.operations.quality import QualityReport
from skewless.operations.report.blocks import Block, FoldedCell, PlotBlock, TableBlock, missing
from skewless.operations.report.cells import figures, milliseconds, number, share, time
from skewless.operations.versions import VersionsReport, read_versions
from skewless.training.plots.canvas import Point
from skewless.training.plots.version_history import DecisionMark, TrafficShares, VersionHistory, history_plot
from skewless.workspace import Workspace

_MOST = 60
_Show = Callable[[float | None], str]
_COLUMNS = ("guardrail", "champion", "challenger", "worse by at least", "limit", "outcome")
_BREACHED, _HELD, _OPEN = "BREACHED", "held", "not decided yet"


def decisions(project: Workspace, model: str) -> Iterator[Block]:
    """Yield the decisions about a model, the latest first: by its gate, by its rollouts, and by hand."""
    history = project.store.traffic.history(model)
    events = [*_moves(read_versions(project, model), history), *_policies(history)]
    events += [_gate(record) for record in project.store.decisions.read_latest_first(model)]
    events.sort(key=lambda event: -event[0])
    rows = [(time(at), *cells) for at, *cells in events[:_MOST]]
    if not rows:
        yield missing("The model has no decisions yet.")
        return
    columns = ("time", "change", "to", "cause", "evidence")
    marked = frozenset(i for i, row in enumerate(rows) if row[1] in {"refused", "rolled back"})
    yield TableBlock(title="", columns=columns, rows=rows, marked=marked, terms="change")


def _moves(report: VersionsReport, history: Sequence[TrafficPolicy]) -> Iterator[tuple[Any, ...]]:
    """Yield the changes of aliases, except the end of a rollout, which its policy shows."""
    moves = list(report.moves)
    for before, policy in pairwise((None, *history)):
        if policy is not None and change_of(before, policy) == "promoted":
            same = [move for move in moves if (move["alias"], move["to"]) == ("champion", policy.champion)]
            if same:
                moves.remove(min(same, key=lambda move: abs(move["at_us"] - policy.since_us)))
    for move in moves:
        yield move["at_us"], f"alias {move['alias']}", move["to"], move["reason"], ""


def _policies(history: Sequence[TrafficPolicy]) -> Iterator[tuple[Any, ...]]:
    for before, policy in pairwise((None, *history)):
        if policy is not None:
            cell = _evidence_cell(policy.evidence or {})
            yield policy.since_us, change_of(before, policy), _policy_text(policy), policy.reason, cell


def change_of(before: TrafficPolicy | None, policy: TrafficPolicy) -> str:
    """Return the change of a policy: ``promoted``, ``rolled back``, or only ``traffic``."""
    if before is None or policy.phase != "champion":
        return "traffic"
    if policy.champion == before.champion:
        return "rolled back" if before.challenger else "traffic"
    return "promoted" if policy.champion == before.challenger else "rolled back"


def _policy_text(policy: TrafficPolicy) -> str:
    if policy.phase == "champion" or policy.challenger is None:
        return f"{policy.champion} for all"
    if policy.phase == "shadow":
        return f"{policy.champion}, {policy.challenger} as shadow"
    return f"{policy.champion}, {policy.challenger} for {policy.share:.0%} ({policy.phase})"


def _gate(record: Mapping[str, Any]) -> tuple[Any, ...]:
    gain = record.get("gain") or {}
    evidence = {name: record.get(name) for name in ("candidate", "champion", "baseline")}
    evidence |= {name: gain.get(name) for name in ("gain", "low", "high", "confidence")}
    evidence = {name: value for name, value in evidence.items() if value is not None}
    passed = "passed" if record.get("promote") else "refused"
    return record["at_us"], passed, record["version"], record.get("reason", ""), figures(evidence)


def _evidence_cell(evidence: Mapping[str, Any]) -> str | FoldedCell:
    """Return the evidence of a traffic policy: a row per guardrail, the rest in a line."""
    verdicts = evidence.get("guardrails") or ()
    rest = figures({name: value for name, value in evidence.items() if name != "guardrails"})
    if not verdicts:
        return rest
    rows = [_row(verdict) for verdict in verdicts]
    marked = frozenset(i for i, row in enumerate(rows) if row[-1] == _BREACHED)
    table = TableBlock(title=rest, columns=_COLUMNS, rows=rows, marked=marked, terms="guardrail")
    return FoldedCell(summary=_counted([row[-1] for row in rows]), table=table)


def _row(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    name, least = str(verdict["guardrail"]), verdict["least"]
    arm, difference = _units(name)
    outcome = _BREACHED if verdict["breached"] else _OPEN if least is None else _HELD
    arms = (arm(verdict["champion"]), arm(verdict["challenger"]))
    return name, *arms, difference(least), difference(verdict["limit"]), outcome


def _units(guardrail: str) -> tuple[_Show, _Show]:
    """Return the formats of an arm's number, and of a difference between arms."""
    if guardrail in {"errors", "missing"}:
        return share, share
    return (milliseconds, _times) if guardrail.startswith("latency") else (number, number)


def _times(ratio: float | None) -> str:
    return number(ratio) if ratio is None else f"{number(ratio)} times"


def _counted(outcomes: Sequence[str]) -> str:
    """Return the number of guardrails by outcome, the worst first."""
    counts = {outcome: outcomes.count(outcome) for outcome in (_BREACHED, _HELD, _OPEN)}
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
