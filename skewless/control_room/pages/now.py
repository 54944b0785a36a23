"""The first page: is anything wrong now?"""

from __future__ import annotations

from dataclasses import dataclass

from skewless.contract.plain_record import PlainRecord
from skewless.control_room.page import Known, Page, Part, Query, Unknown, read_part
from skewless.operations.status import PlanStatus, ProcessStatus, read_status
from skewless.project import Project


@dataclass(frozen=True, kw_only=True)
class Now(PlainRecord):
    """The answer.

    Args:
        plan: the applied plan.
        processes: of the project.
    """

    plan: Part[PlanStatus | None]
    processes: Part[list[ProcessStatus]]


def read_now(project: Project, _: Query) -> Now:
    """Return the state of the project now."""
    status = read_part(lambda: read_status(project))
    if isinstance(status, Unknown):
        return Now(plan=status, processes=status)
    if status.value.database is not None:
        away = Unknown(unknown=f"database: {status.value.database}")
        return Now(plan=away, processes=away)
    return Now(plan=Known(value=status.value.plan), processes=Known(value=status.value.processes))


PAGE = Page(path="/", question="Is anything wrong now?", template="now.html", read=read_now, menu="Now", live_s=3)
