"""Counts of rows by UTC day: accepted, late, duplicate, and refused by reason; one document per log.

The log of a view or of an event source has millions of rows; a page reads these counts instead. The counts inform
people: a killed process loses those of its last seconds, and no decision is made from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa

from skewless.contract.errors import StoreError
from skewless.contract.render import shorten
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.telemetry.logger import EventLogger

DAY_US = 86_400_000_000
OTHER = "other reasons"
_KIND = "daily_counts"
_MOST_DAYS, _PLACE_DAYS = 35, 3
_MOST_REASONS, _MOST_PLACES = 10, 5
_log = EventLogger()

Place = tuple[str, int]
"""A log partition and a position in it."""


@dataclass(kw_only=True)
class RowCounts:
    """The counts of some rows of one log.

    Args:
        accepted: rows that were accepted, late rows included.
        late: accepted events that came after newer events.
        duplicates: events that were skipped, because they had been accepted before.
        refused: number of refused rows by reason.
        places: places of the latest refused rows by reason, oldest first: at most five, and none after three days.
    """

    accepted: int = 0
    late: int = 0
    duplicates: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[Place]] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """Return the number of refused rows."""
        return sum(self.refused.values())

    def add(self, other: RowCounts) -> None:
        """Add the counts of later rows."""
        self.accepted += other.accepted
        self.late += other.late
        self.duplicates += other.duplicates
        for reason, rows in other.refused.items():
            self._add_reason(reason, rows, other.places.get(reason, []))

    def add_refused(self, reasons: pa.ChunkedArray, partition: str, first: int) -> int:
        """Add the refused rows of a batch; return their number.

        Args:
            reasons: the column ``__reject``.
            partition: of the log.
            first: position of the batch's first row.
        """
        if reasons.null_count == len(reasons):
            return 0
        positions = np.flatnonzero(reasons.is_valid().to_numpy()) + first
        places: dict[str, list[Place]] = {}
        for at, reason in zip(positions.tolist(), reasons.drop_null().to_pylist(), strict=True):
            places.setdefault(reason, []).append((partition, at))
        for reason, refused in places.items():
            self._add_reason(reason, len(refused), refused)
        return len(positions)

    def _add_reason(self, reason: str, rows: int, places: list[Place]) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + rows
        self.places[reason] = [*self.places.get(reason, []), *places][-_MOST_PLACES:]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values; the rarest of many reasons are counted together."""
        kept = RowCounts(accepted=self.accepted, late=self.late, duplicates=self.duplicates)
        for i, reason in enumerate(sorted(self.refused, key=lambda reason: -self.refused[reason])):
            name = shorten(reason) if i < _MOST_REASONS else OTHER
            kept._add_reason(name, self.refused[reason], self.places.get(reason, []))
        return {**vars(kept), "places": {reason: places for reason, places in kept.places.items() if places}}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Return the counts in the result of ``as_dict``."""
        places = {reason: [(name, at) for name, at in items] for reason, items in body["places"].items()}
        numbers = {name: int(body[name]) for name in ("accepted", "late", "duplicates")}
        return cls(**numbers, refused=dict(body["refused"]), places=places)


ByDay = Mapping[int, RowCounts]
"""Counts by day; a day is its beginning, UTC microseconds."""


class DailyCounts:
    """The counts of all logs of a project by day, for the last 35 days with rows; any process may add to them."""

    def __init__(self, database: Database) -> None:
        self._documents = Documents(database, _KIND)

    def add(self, log: str, now_us: int, counts: RowCounts) -> None:
        """Add rows that were just counted; a failed write is only logged.

        Args:
            log: ``batch/VIEW-HASH`` or ``events/SOURCE``.
            now_us: time of the project's clock, whose day the rows belong to.
        """
        if counts == RowCounts():
            return
        try:
            with self._documents.edit(log, {}) as days:
                day = RowCounts.from_dict(days.get(_name(now_us), RowCounts().as_dict()))
                day.add(counts)
                days[_name(now_us)] = day.as_dict()
                _forget(days)
        # The rows are in the log: what accepted them must not fail because of their number.
        except (StoreError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.warning("daily_counts_not_saved", log=log, error=str(error))

    def read(self, log: str) -> ByDay:
        """Return the counts of a log by day, in order; empty if none were recorded.

        Raises:
            StoreError: the database is unavailable, or the document is corrupt.
        """
        return _decode(log, self._documents.get(log) or {})

    def read_all(self) -> dict[str, ByDay]:
        """Return the counts of all logs, sorted by name.

        Raises:
            StoreError: as ``read``.
        """
        return {log: _decode(log, body) for log, body in self._documents.list_all().items()}


def _forget(days: dict[str, Any]) -> None:
    """Remove the oldest days, and the places of all but the latest days: a page reads the counts of all logs."""
    names = sorted(days, key=int)
    for old in names[:-_MOST_DAYS]:
        del days[old]
    for old in names[-_MOST_DAYS:-_PLACE_DAYS]:
        days[old]["places"] = {}


def _name(at_us: int) -> str:
    return str(at_us // DAY_US)


def _decode(log: str, body: Mapping[str, Any]) -> ByDay:
    try:
        days = sorted((int(name) * DAY_US, item) for name, item in body.items())
        return {day: RowCounts.from_dict(item) for day, item in days}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fix = "restore the database from a backup"
        raise StoreError(f"daily counts of log {log!r}", "are corrupt in the database", fix=fix) from error
