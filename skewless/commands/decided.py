"""A gate's decision as people read it: the gain with its interval, and where the version loses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skewless.commands.output import table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from skewless.training.decision import Decision

_WORST = 10


def decided(decision: Decision) -> list[RenderableType]:
    """Return tables of the comparison with the champion; none where there was nothing to compare with."""
    gain = decision.gain
    if gain is None:
        return []
    columns = ("", "rows", "version", "champion", "gain", "at least", "at most", "")
    rows = [("all test rows", gain.rows, gain.candidate, gain.champion, gain.gain, gain.low, gain.high, "")]
    for each in decision.slices[:_WORST]:
        found, verdict = each.gain, "lost" if each.lost else ""
        where = f"{each.column} {each.value}"
        rows.append((where, found.rows, found.candidate, found.champion, found.gain, found.low, found.high, verdict))
    left = len(decision.slices) - _WORST
    title = f"{gain.metric} against the champion's on the same rows, {gain.confidence:.4g} confidence"
    more = [f"{left:,} more slices gain no less"] if left > 0 else []
    return [table(title, columns, rows), *more]
