"""The counts of one event source in one process."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields

from skewless.infra.log.catalog import source_logs
from skewless.infra.log.daily_counts import DailyCounts, RowCounts


@dataclass(kw_only=True)
class SourceCounts:
    """Counts of one source since the worker began; times are microseconds.

    Args:
        source: name of the event source.
        read: messages read from the stream.
        accepted, rejected, duplicates: results of these messages.
        late: accepted events that are older than an earlier event by more than a hop's slack.
        states: updated states of entities.
        batches: log files written.
        rereads: log rows that were applied from the log after a start or a failure.
        watermark_us: greatest accepted event time; None: no event yet.
        lag: messages waiting in the stream; None: unknown.
        partitions: number of partitions that this worker owns.
        trouble: why the worker cannot continue; None: nothing is wrong.
    """

    source: str
    read: int = 0
    accepted: int = 0
    rejected: int = 0
    duplicates: int = 0
    late: int = 0
    states: int = 0
    batches: int = 0
    rereads: int = 0
    watermark_us: int | None = None
    lag: int | None = None
    partitions: int = 0
    trouble: str | None = None
    _last: tuple[float, int, float] = field(default=(0.0, 0, 0.0), repr=False)
    _unsaved: RowCounts = field(default_factory=RowCounts, repr=False)
    _at_us: int = field(default=0, repr=False)

    def as_dict(self) -> dict[str, object]:
        """Return plain values, ready for JSON."""
        return {item.name: getattr(self, item.name) for item in fields(self) if not item.name.startswith("_")}

    def add(self, counts: RowCounts, now_us: int) -> None:
        """Add the counts of a batch that was accepted at a time."""
        self.accepted += counts.accepted
        self.rejected += counts.rejected
        self.duplicates += counts.duplicates
        self.late += counts.late
        self._unsaved.add(counts)
        self._at_us = now_us

    def save(self, daily: DailyCounts) -> None:
        """Add the counts since the last save to those of the day."""
        unsaved, self._unsaved = self._unsaved, RowCounts()
        daily.add(source_logs(self.source), self._at_us, unsaved)

    def rate(self) -> float:
        """Return messages read per second since the last measurement, which is at least a second ago."""
        now = time.monotonic()
        since, read, rate = self._last
        if now - since >= 1.0:
            rate = (self.read - read) / (now - since) if since else 0.0
            self._last = (now, self.read, rate)
        return rate
