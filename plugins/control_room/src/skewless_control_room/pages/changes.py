"""What changed, and by whom? The audit log, with the moves of each model's champion that it does not explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skewless.contract.errors import RequestError
from skewless.contract.plain_record import PlainRecord
from skewless.infra.definitions.plans.needed_views import CHAMPION
from skewless.infra.platform.access.audit import AuditLog, AuditRecord
from skewless.project import Project
from skewless_control_room.page import Known, Page, Part, Query, read_part

_PAGE = 50
_MOVES = 10
_LAST = 2**53
_MODELS = 200


@dataclass(frozen=True, kw_only=True)
class ChampionMove(PlainRecord):
    """A model's champion was replaced.

    Args:
        reason: recorded with the move: of a gate, a rollout, a person.
    """

    model: str
    at_us: int
    before: str | None
    after: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class AuditPage(PlainRecord):
    """The answer.

    Args:
        records: of the audit log, the latest first.
        older: number before which the next page begins; None: this is the last page.
        moves: the latest champions of each model, the latest first.
    """

    records: Part[list[AuditRecord]]
    older: int | None
    moves: Part[list[ChampionMove]]


def read_changes(project: Project, query: Query) -> AuditPage:
    """Return a page of the audit log."""
    before = query.number("before", 0, most=_LAST) or None
    log = AuditLog(project.state.database)
    found = read_part(lambda: log.read(_PAGE, before))
    read = found.value if isinstance(found, Known) else []
    shown = [record for record in read if _may_see(query, record)]
    return AuditPage(
        records=Known(value=shown) if isinstance(found, Known) else found,
        older=read[-1].number if len(read) == _PAGE and read[-1].number > 1 else None,
        moves=read_part(lambda: _read_moves(project, query)),
    )


def _may_see(query: Query, record: AuditRecord) -> bool:
    """Return whether the reader may see a record: who is limited to some models sees only changes of these."""
    return query.models is None or record.subject in query.models


def _read_moves(project: Project, query: Query) -> list[ChampionMove]:
    models = [model for model in project.packages.list_models() if query.models is None or model in query.models]
    moves = [
        ChampionMove(model=model, at_us=move.at_us, before=move.expect, after=move.to, reason=move.reason)
        for model in models[:_MODELS]
        for move in project.store.aliases.read_latest_first(model, CHAMPION, _MOVES)
    ]
    return sorted(moves, key=lambda move: -move.at_us)[:_PAGE]


@dataclass(frozen=True, kw_only=True)
class OneChange(PlainRecord):
    """A record of the audit log.

    Args:
        differences: lines of what was changed: ``sign`` (``+``, ``-`` or empty) and ``text``.
    """

    record: AuditRecord
    differences: list[dict[str, str]]


def read_change(project: Project, query: Query) -> OneChange:
    """Return a record of the audit log, with its differences.

    Raises:
        RequestError: there is none with this number.
    """
    text = query.path["number"]
    number = int(text) if text.isascii() and text.isdigit() and len(text) < len(str(_LAST)) else 0
    record = AuditLog(project.state.database).get(number) if number else None
    if record is None or not _may_see(query, record):
        raise RequestError(f"change {text!r}", "is not in the audit log", fix="open /changes")
    return OneChange(record=record, differences=_differences(record.result or {}))


def _differences(result: Any) -> list[dict[str, str]]:  # noqa: ANN401 - JSON
    lines = []
    for change in result.get("changes", []):
        lines.append({"sign": "", "text": f"{change['action']} {change['kind']} {change['name']}"})
        for detail in change.get("details", []):
            path = detail.get("path", "")
            for sign, side in (("-", "before"), ("+", "after")):
                if detail.get(side) is not None:
                    lines.append({"sign": sign, "text": f"{path}: {detail[side]}"})
    return lines


PAGE = Page(
    path="/changes", question="What changed, by whom?", template="changes.html", read=read_changes, menu="Changes"
)
ONE = Page(path="/changes/{number}", question="Change {number}", template="change.html", read=read_change)
