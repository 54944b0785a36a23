"""What a materialisation says of itself: before, while it runs, and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from skewless.contract.errors import SkewlessError


@dataclass(frozen=True, kw_only=True)
class RunStep:
    """How far a run is with one view.

    Args:
        done: rows so far.
        total: rows in all, where that is known.
    """

    view: str
    doing: Literal["accepting", "applying"]
    done: int
    total: int | None


@dataclass(frozen=True, kw_only=True)
class Pending:
    """What a run would do for one view: rows accepted and rejected, and entities that get a row."""

    view: str
    accepted: int
    rejected: int
    entities: int


@dataclass(frozen=True, kw_only=True)
class ViewReport:
    """What a run did for one view, in rows.

    Args:
        left_out: rows of the source that are not in the online store: rejected by this run, or not due; by reason.
        problem: why a version that only models read has not been fed; None: it has.
    """

    view: str
    accepted: int
    rejected: int
    applied: int
    written: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    problem: str | None = None

    @classmethod
    def unfed(cls, view: str, error: SkewlessError) -> ViewReport:
        """Return the report of a view that could not be fed."""
        return cls(view=view, accepted=0, rejected=0, applied=0, written=0, problem=str(error))


OnStep = Callable[[RunStep], None]


def totals(reports: Sequence[ViewReport]) -> Mapping[str, int]:
    """Return the sums over all views."""
    return {
        name: sum(getattr(report, name) for report in reports)
        for name in ("accepted", "rejected", "applied", "written")
    }
