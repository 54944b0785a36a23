"""A gate's decision as people read it: the gain with its interval, and the worst slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skewless.commands.cells import StateCell
from skewless.commands.output import Part, table

if TYPE_CHECKING:
    from skewless.training.decision import Decision

_WORST = 10


def decision_parts(decision: Decision) -> list[Part]:
    """Return tables of the comparison with the champion; empty: the model had no champion."""
    gain = decision.gain
    if gain is None:
        return []
    columns = ("slice", "rows", "version", "champion", "gain", "at least", "at most", "verdict")
    rows: list[tuple[object, ...]] = [
        ("all test rows", gain.rows, gain.candidate, gain.champion, gain.gain, gain.low, gain.high, "")
    ]
    for item in decision.slices[:_WORST]:
        verdict = StateCell("lost", "bad") if item.lost else ""
        own = item.gain
        name = f"{item.column} {item.value}"
        rows.append((name, own.rows, own.candidate, own.champion, own.gain, own.low, own.high, verdict))
    more = len(decision.slices) - _WORST
    title = f"{gain.metric} against the champion's on the same rows, {gain.confidence:.4g} confidence"
    return [table(title, columns, rows), *([f"{more:,} more slices gain no less"] if more > 0 else [])]
