"""Steps back of push sources' streams: a Redis that is an older copy of itself has lost the events in between."""

from __future__ import annotations

from dataclasses import dataclass

from skewless.contract.plain_record import PlainRecord
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents

_MOST = 20  # of one source, the latest
_WEEK_US = 7 * 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class StreamLoss(PlainRecord):
    """Events that Redis acknowledged between two times may be lost; times in microseconds.

    Args:
        partition: of the stream.
        after: id of the last entry that a worker had read; all entries up to it are in the log.
        from_us: when Redis acknowledged that entry, by its clock.
        until_us: when the worker noticed the step back.
    """

    source: str
    partition: str
    after: str
    from_us: int
    until_us: int


class StreamLosses:
    """The latest losses of all sources, in the database."""

    def __init__(self, database: Database) -> None:
        self._documents = Documents(database, "stream_losses")

    def add(self, loss: StreamLoss) -> None:
        """Record a loss once, also if a worker is killed and notices it again; raises StoreError without a database."""
        with self._documents.edit(loss.source, []) as items:
            # After a loss, entries have later ids: a range that begins before another one continues it.
            kept = [item for item in items if item["partition"] != loss.partition or item["from_us"] < loss.from_us]
            items[:] = [*kept, loss.as_dict()][-_MOST:]

    def read_recent(self, now_us: int) -> list[StreamLoss]:
        """Return the losses of the last week, by source, oldest first; raises StoreError as ``add``."""
        losses = [StreamLoss.from_dict(item) for items in self._documents.list_all().values() for item in items]
        return [loss for loss in losses if loss.until_us > now_us - _WEEK_US]
