"""The events of the test period: sent to the streams at their times, and counted in the log.

They are in the folder ``live`` next to the history of their source: Parquet files with ``at``, the time to send,
``key``, which selects the partition, and ``payload``, the message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.keys import window_marker
from skewless.contract.windows.view import EventSource
from skewless.infra.ingest.streams.port import EventSender, Partition
from skewless.infra.ingest.streams.redis_link import EventKeys, RedisLink, parse_position
from skewless.infra.ingest.streams.state_writer import PENDING_US
from skewless.infra.ingest.streams.streams import Streams
from skewless.infra.log.log_columns import EVENT, REJECT
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.reads.online.port import OnlineStore
from skewless.infra.reads.online.store import open_online_store
from skewless_demo.tour_state import wait_for


@dataclass(frozen=True, kw_only=True)
class SendResult:
    """The results of the sent events of one source.

    Args:
        late: accepted events that arrived after an event with an event time more than two seconds later.
        reasons: number of quarantined messages by reason.
    """

    source: str
    sent: int
    accepted: int
    late: int
    duplicates: int
    reasons: Counter[str]

    def line(self) -> str:
        """Return the result in a sentence."""
        refused = sum(self.reasons.values())
        return (
            f"{self.source}: {self.sent:,} sent, {self.accepted:,} accepted ({self.late:,} of them late),"
            f" {self.duplicates:,} duplicates dropped, {refused:,} quarantined"
        )


@dataclass(kw_only=True)
class SourceFeed:
    """The messages of one source.

    Args:
        at: times to send, microseconds, ascending.
        sent: number of sent messages.
    """

    source: EventSource
    sender: EventSender
    at: npt.NDArray[np.int64]
    keys: list[str]
    payloads: list[bytes]
    sent: int = 0

    def send(self, until_us: int) -> int:
        """Send the messages that are due until a time; return their number."""
        first, self.sent = self.sent, int(np.searchsorted(self.at, until_us, side="right"))
        if first < self.sent:
            self.sender.send(self.payloads[first : self.sent], self.keys[first : self.sent])
        return self.sent - first


@dataclass(kw_only=True)
class Feed:
    """The messages of all sources; the feed of a project without messages is empty.

    Args:
        link: to the Redis server of the streams.
        store: the online store of the window states.
    """

    streams: Streams
    feeds: list[SourceFeed]
    link: RedisLink
    store: OnlineStore
    _logs: dict[str, PartitionLog] = field(default_factory=dict)

    @classmethod
    def of(cls, streams: Streams, repo: Path) -> Feed:
        """Return the feed of a project."""
        feeds = [_open_feed(streams, source, folder) for source, folder in _folders(streams, repo)]
        return cls(
            streams=streams,
            feeds=feeds,
            link=RedisLink(streams.stream_url, 5.0),
            store=open_online_store(streams.redis_url),
        )

    def __bool__(self) -> bool:
        """Whether the feed has messages."""
        return bool(self.feeds)

    def send(self, until_us: int) -> int:
        """Send the messages that are due until a time; return their number."""
        return sum(feed.send(until_us) for feed in self.feeds)

    def wait(self, check: Callable[[], None], seconds: float = 60.0) -> None:
        """Wait until all sent messages are in the log and in the window states.

        Args:
            check: raises if the worker has ended.

        Raises:
            PlaceError: the worker took too long.
        """
        for _ in wait_for("stream worker", "does not apply the events in time", "stream.log", seconds):
            if all(self._has_arrived(feed.source, index) for feed in self.feeds for index in self._indices):
                return
            check()

    def results(self) -> list[SendResult]:
        """Return the results of all sent messages, by the log."""
        return [self._result(feed) for feed in self.feeds]

    def close(self) -> None:
        """Close the connections."""
        for feed in self.feeds:
            feed.sender.close()
        self.link.close()
        self.store.close()

    @property
    def _indices(self) -> range:
        return range(self.streams.settings.stream_partitions)

    def _has_arrived(self, source: EventSource, index: int) -> bool:
        """Whether a worker has read a partition to its end, and has applied the log to its states."""
        client: Any = self.link.client()
        keys = EventKeys(project=self.streams.plan.project, source=source.name)
        if not client.exists(keys.stream(index)):
            return True
        last = parse_position(client.xinfo_stream(keys.stream(index))["last-generated-id"])
        # The stream's first entry is a deleted placeholder.
        if max(map(int, client.hvals(keys.committed(index))), default=0) <= last and last > 1:
            return False
        log = self._log(source, index)
        return log is None or self._is_applied(source, log)

    def _is_applied(self, source: EventSource, log: PartitionLog) -> bool:
        lives = [(view, self.streams.generations.find_live(view)) for view in self.streams.views(source.name)]
        project, end = self.streams.plan.project, log.next_seq() - 1
        names = [window_marker(project, view, live.number, log.partition) for view, live in lives if live is not None]
        return all(end < 0 if at is None else at.position >= end for at in self.store.read_markers(names))

    def _log(self, source: EventSource, index: int) -> PartitionLog | None:
        client: Any = self.link.client()
        epoch = client.get(EventKeys(project=self.streams.plan.project, source=source.name).epoch(index))
        if epoch is None:
            return None
        name = Partition(name=str(index), epoch=epoch.decode()).log_name(source.name)
        return self._logs.setdefault(name, PartitionLog(self.streams.state, name))

    def _result(self, feed: SourceFeed) -> SendResult:
        accepted = late = rows = 0
        reasons: Counter[str] = Counter()
        for log in filter(None, (self._log(feed.source, index) for index in self._indices)):
            table = pa.concat_tables(log.read(columns=[EVENT, REJECT]))
            ts = table.filter(table[REJECT].is_null())[EVENT].to_numpy()
            rows += table.num_rows
            accepted += len(ts)
            late += int((ts < np.maximum.accumulate(ts) - PENDING_US).sum())
            reasons.update(table[REJECT].drop_null().to_pylist())
        lost = feed.sent - rows
        return SendResult(
            source=feed.source.name, sent=feed.sent, accepted=accepted, late=late, duplicates=lost, reasons=reasons
        )


def live_folder(history: Path) -> Path | None:
    """Return the folder with the rows of the test period, next to the folder of the history; None: there is none."""
    folder = history.parent / "live"
    return folder if folder.is_dir() and folder != history else None


def _folders(streams: Streams, repo: Path) -> Iterator[tuple[EventSource, Path]]:
    for source in streams.plan.sources:
        folder = live_folder(repo / source.history) if source.history else None
        if source.kind == "push" and folder is not None:
            yield source, folder


def _open_feed(streams: Streams, source: EventSource, folder: Path) -> SourceFeed:
    table = pq.read_table(folder).sort_by("at")
    return SourceFeed(
        source=source,
        sender=streams.sender(source),
        at=table["at"].cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(),
        keys=table["key"].to_pylist(),
        payloads=table["payload"].to_pylist(),
    )
