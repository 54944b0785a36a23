"""Reports of materialization: what a run would do, its progress, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class RunStep:
    """The progress of a run with one view.

    Args:
        view: name of the view.
        doing: the phase.
        done: processed rows.
        total: all rows, if known.
    """

    view: str
    doing: Literal["accepting", "applying"]
    done: int
    total: int | None


@dataclass(frozen=True, kw_only=True)
class Pending:
    """The expected result for one view: accepted rows, rejected rows, and entities that get a row."""

    view: str
    accepted: int
    rejected: int
    entities: int


@dataclass(frozen=True, kw_only=True)
class ViewReport:
    """The result for one view, in rows.

    Args:
        view: name of the view.
        accepted, rejected: rows appended to the log.
        applied: rows sent to the online store.
        written: rows that the online store has written, because they were newer.
        left_out: skipped rows of the source, by reason: rejected in this run, or not due yet.
        problem: why a version that only models read was not updated; None: it was.
    """

    view: str
    accepted: int = 0
    rejected: int = 0
    applied: int = 0
    written: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    problem: str | None = None


OnStep = Callable[[RunStep], None]


def totals(reports: Sequence[ViewReport]) -> Mapping[str, int]:
    """Return the sums over all views."""
    return {
        name: sum(getattr(report, name) for report in reports)
        for name in ("accepted", "rejected", "applied", "written")
    }
