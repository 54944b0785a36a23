"""Counts source rows that are not in the online store, by view and reason.

Rejected rows are in the accepted log, with their reason. All others are counted in a document per view and command,
which has the counts of the last call of that command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from skewless.contract.errors import GateError, StoreError
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.log_columns import rejected_reasons
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.objects import DamagedObjectError
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.logger import EventLogger

SkipCommand = Literal["materialize", "push"]
_KIND = "skipped_rows"
_BATCH = "batch"
_log = EventLogger()


@dataclass(frozen=True, kw_only=True)
class SkippedRows:
    """The rows of one view that are not in the online store for one reason.

    Args:
        view: name of the view.
        reason: for people.
        rows: number of rows.
        at_us: time of the command; None: all rows that the log has ever rejected.
    """

    view: str
    verb: SkipCommand
    reason: str
    rows: int
    at_us: int | None


def save_skipped(
    state: ProjectState, view: str, view_hash: str, command: SkipCommand, reasons: Mapping[str, int], at_us: int
) -> None:
    """Replace the counts of a view's rows that a command skipped; a failed write is only logged."""
    documents, name = Documents(state.database, _KIND), f"{view_hash}.{command}"
    items = [SkippedRows(view=view, verb=command, reason=reason, rows=n, at_us=at_us) for reason, n in reasons.items()]
    try:
        if items:
            documents.put(name, [asdict(item) for item in items])
        elif documents.revision(name):
            documents.delete(name)
    # The counts inform people. A run that has accepted rows must not fail because of them.
    except StoreError as error:
        _log.warning("skipped_rows_not_saved", view=view, error=str(error))


def record_skipped(
    state: ProjectState,
    view: str,
    view_hash: str,
    command: SkipCommand,
    reasons: Mapping[str, int],
    at_us: int,
    *,
    strict: bool,
) -> None:
    """Record the rows of a view that a command skips, and log a warning.

    Raises:
        GateError: ``strict`` is set and there are any.
    """
    save_skipped(state, view, view_hash, command, reasons, at_us)
    if strict:
        reject_skipped(view, reasons)
    warn_skipped(view, reasons)


def reject_skipped(view: str, reasons: Mapping[str, int]) -> None:
    """Raise an error if a command would skip rows.

    Raises:
        GateError: there are any.
    """
    if reasons:
        raise GateError(
            f"view {view!r}",
            "has rows that would be skipped",
            value=", ".join(f"{rows:,} x {reason}" for reason, rows in reasons.items()),
            fix="correct the rows, or set strict to false to skip them",
        )


def read_skipped(state: ProjectState) -> list[SkippedRows]:
    """Return the skipped rows of all views in the state folder, by view and reason; a corrupt log is not counted."""
    items = read_last_skipped(state)
    counts: Counter[tuple[str, str]] = Counter()
    for partition in Catalog(state.database).ends(_BATCH):
        view = partition.removeprefix(f"{_BATCH}/").rpartition("-")[0]
        try:
            reasons = rejected_reasons(PartitionLog(state, partition).files())
        except DamagedObjectError:
            _log.warning("skipped_rows_not_read", document=partition)
            continue
        counts.update({(view, reason): rows for reason, rows in reasons.items()})
    items += [
        SkippedRows(view=view, verb="materialize", reason=reason, rows=rows, at_us=None)
        for (view, reason), rows in counts.items()
    ]
    return sorted(items, key=lambda item: (item.view, item.verb, item.reason))


def read_last_skipped(state: ProjectState) -> list[SkippedRows]:
    """Return the rows that the last call of each command has skipped, without rejected rows.

    Reads one document per view and command, and no file.
    """
    items: list[SkippedRows] = []
    for name, saved in Documents(state.database, _KIND).list_all().items():
        try:
            items += [SkippedRows(**item) for item in saved]
        except TypeError:
            _log.warning("skipped_rows_not_read", document=name)
    return sorted(items, key=lambda item: (item.view, item.verb, item.reason))


def warn_skipped(view: str, reasons: Mapping[str, int]) -> None:
    """Log a warning for each reason."""
    for reason, rows in reasons.items():
        _log.warning("rows_skipped", view=view, reason=reason, rows=rows, fix="see all counts with `skewless status`")
