"""The section on the decisions about a model: by its gate, by its rollouts, and by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from skewless.operations.report.blocks import Paragraph, Section, TableBlock
from skewless.operations.report.cells import figures, time
from skewless.operations.report.evidence import evidence_cell

if TYPE_CHECKING:
    from skewless.contract.traffic import TrafficPolicy
    from skewless.operations.versions import VersionsReport
    from skewless.workspace import Workspace

_MOST = 60


def decisions_section(project: Workspace, model: str) -> Section:
    """Return the decisions about a model, the latest first: by its gate, by its rollouts, and by hand."""
    from skewless.operations.versions import read_versions

    history = project.store.traffic.history(model)
    events = [*_moves(read_versions(project, model), history), *_policies(history)]
    events += [_gate(record) for record in project.store.decisions.read_latest_first(model)]
    events.sort(key=lambda event: -event[0])
    rows = [(time(at), *cells) for at, *cells in events[:_MOST]]
    if not rows:
        return Section(title="Decisions", blocks=[Paragraph(text="The model has no decisions yet.", tone="missing")])
    columns = ("time", "change", "to", "cause", "evidence")
    marked = frozenset(i for i, row in enumerate(rows) if row[1] in {"refused", "rolled back"})
    table = TableBlock(title="", columns=columns, rows=rows, marked=marked, terms="change")
    return Section(title="Decisions", blocks=[table])


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
            cell = evidence_cell(policy.evidence or {})
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
