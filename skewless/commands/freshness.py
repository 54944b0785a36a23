"""``skewless freshness``: how old the newest data of each view is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import answering, table
from skewless.contract.clock import from_us
from skewless.contract.errors import GateError

if TYPE_CHECKING:
    from skewless.infra.verdicts import Freshness

Views = Annotated[list[str] | None, typer.Argument(metavar="[VIEW]...", help="Views of any kind; none: all.")]
Check = Annotated[bool, typer.Option("--check", help="Exit 5 if a view is late.")]
_COLUMNS = ("view", "newest event", "age", "watermark age", "allowed", "online rows read", "stale", "late")


def freshness(views: Views = None, *, check: Check = False, repo: Repo = Path(), as_json: Json = False) -> None:
    """Compare the age of each view with its tag skewless.freshness, and look after processes; keep it, and alert."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        from skewless.operations.freshness import look

        with output.working("reading the newest events"):
            found = look(project, views or [])
        output.answer({"views": [_body(item) for item in found]}, table("views", _COLUMNS, [_row(i) for i in found]))
        if check and any(item.is_late for item in found):
            raise typer.Exit(GateError.exit_code)


def _body(item: Freshness) -> dict[str, object]:
    return {
        "view": item.view,
        "newest": _moment(item.newest_us),
        "age_s": _seconds(item.age_us),
        "watermark_age_s": _seconds(item.watermark_age_us),
        "limit_s": _seconds(item.limit_us or None),
        "sampled": item.sampled,
        "stale": item.stale,
        "late": item.is_late,
    }


def _row(item: Freshness) -> list[object]:
    return list(_body(item).values())


def _moment(at_us: int | None) -> str | None:
    return None if at_us is None else from_us(at_us).isoformat(timespec="seconds")


def _seconds(length_us: int | None) -> float | None:
    return None if length_us is None else length_us / 1e6
