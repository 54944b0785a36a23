"""The evidence of a decision, as people read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skewless.operations.report.blocks import FoldedCell, TableBlock
from skewless.operations.report.cells import figures, milliseconds, number, share

_Show = Callable[[float | None], str]
_COLUMNS = ("guardrail", "champion", "challenger", "worse by at least", "limit", "outcome")
_BREACHED, _HELD, _OPEN = "BREACHED", "held", "not decided yet"


def evidence_cell(evidence: Mapping[str, Any]) -> str | FoldedCell:
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
