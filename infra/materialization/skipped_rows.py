"""Rows that are not in the online store although somebody brought them: how many, of what, and why.

Rows that a run rejected stand in the accepted log, with their reason. All others are counted in a file per view and
verb, which says how it was when that verb was last done.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import structlog

from skewless.contract.errors import GateError
from skewless.infra.log.accepted import AcceptedLog, rejected_reasons
from skewless.infra.storage.durable import make_folder

Verb = Literal["materialize", "push"]
_FOLDER = "left_out"
_BATCH = "batch"
_log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class SkippedRows:
    """Rows of one view that are left out of the online store for one reason.

    Args:
        view: its name.
        verb: what left them out.
        at_us: when that was; None: over the whole life of the log.
    """

    view: str
    verb: Verb
    reason: str
    rows: int
    at_us: int | None


def save_left_out(state: Path, view: str, view_hash: str, verb: Verb, reasons: Mapping[str, int], at_us: int) -> None:
    """Keep what a verb left out of a view, instead of what it left out before; a disk that refuses is no error."""
    path = state / _FOLDER / f"{view_hash}.{verb}.json"
    try:
        if not reasons:
            path.unlink(missing_ok=True)
            return
        make_folder(path.parent)
        temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
        items = [SkippedRows(view=view, verb=verb, reason=reason, rows=n, at_us=at_us) for reason, n in reasons.items()]
        temporary.write_text(json.dumps([asdict(item) for item in items]))
        temporary.replace(path)
    except OSError as error:
        _log.warning("left_out_not_kept", view=view, error=str(error))


def leave_out(
    state: Path, view: str, view_hash: str, verb: Verb, reasons: Mapping[str, int], at_us: int, *, strict: bool
) -> None:
    """Keep what a verb leaves out of a view, and warn of it.

    Raises:
        GateError: ``strict`` is set, and there is something.
    """
    save_left_out(state, view, view_hash, verb, reasons, at_us)
    if strict:
        refuse_left_out(view, reasons)
    tell_left_out(view, reasons)


def refuse_left_out(view: str, reasons: Mapping[str, int]) -> None:
    """Refuse what a verb would leave out.

    Raises:
        GateError: there is something.
    """
    if reasons:
        raise GateError(
            f"view {view!r}",
            "has rows that would be left out of the online store",
            value=", ".join(f"{rows:,} x {reason}" for reason, rows in reasons.items()),
            fix="correct the rows, or set strict to false to leave them out",
        )


def read_left_out(state: Path) -> list[SkippedRows]:
    """Return what is left out of all views that the state folder knows, by view and reason."""
    items = [*_rejected(state), *_kept(state)]
    return sorted(items, key=lambda item: (item.view, item.verb, item.reason))


def tell_left_out(view: str, reasons: Mapping[str, int]) -> None:
    """Log a warning for each reason."""
    for reason, rows in reasons.items():
        _log.warning("rows_left_out", view=view, reason=reason, rows=rows, fix="`skewless status` counts them all")


def _kept(state: Path) -> Iterator[SkippedRows]:
    for path in sorted((state / _FOLDER).glob("*.json")):
        try:
            yield from [SkippedRows(**item) for item in json.loads(path.read_text())]
        except (OSError, ValueError, TypeError):
            _log.warning("left_out_not_read", file=str(path))


def _rejected(state: Path) -> Iterator[SkippedRows]:
    counts: Counter[tuple[str, str]] = Counter()
    for folder in sorted((state / "log" / _BATCH).glob("*")):
        view = folder.name.rpartition("-")[0]
        log = AcceptedLog(state / "log", f"{_BATCH}/{folder.name}")
        counts.update({(view, reason): rows for reason, rows in rejected_reasons(log.files()).items()})
    for (view, reason), rows in counts.items():
        yield SkippedRows(view=view, verb="materialize", reason=reason, rows=rows, at_us=None)
