"""Opens the streams of a project's event sources, and the workers and jobs that process them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import duckdb

from skewless.contract.clock import Clock
from skewless.contract.errors import RequestError, StoreError
from skewless.contract.names import check_known
from skewless.contract.plan import FeaturePlan
from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.definitions.plans.needed_views import NeededViews
from skewless.infra.definitions.plans.retirement import Retirement
from skewless.infra.ingest.streams.decode import Decoder
from skewless.infra.ingest.streams.parquet_stream import ParquetStream
from skewless.infra.ingest.streams.port import EventSender, OpenStream, require_connector
from skewless.infra.ingest.streams.redis_link import open_sender, worker_group
from skewless.infra.ingest.streams.redis_stream import RedisStream
from skewless.infra.ingest.streams.state_writer import StateWriter
from skewless.infra.log.catalog import log_partitions
from skewless.infra.log.clock_skews import ClockSkews
from skewless.infra.log.generations import Generations
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.formats.codec import open_event_reader
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.shared_facts import check_partitions
from skewless.infra.reads.engines.engine import Engine
from skewless.infra.reads.online.port import OnlineStore


class Assignment(NamedTuple):
    """The source that a worker reads, and the windowed views that it updates."""

    source: EventSource
    views: tuple[WindowView, ...]


@dataclass(frozen=True, kw_only=True)
class Streams:
    """Opens streams, workers and jobs for the event sources of a plan.

    Args:
        plan: with the event sources.
        state: the project's state folder.
        settings: of the project.
        url: returns the URL of the online store; called on first use.
        connection: to DuckDB, reads the logs.
        clock: of the project.
        needed: returns the views that are needed now; None: always those of the plan.
        engine: for large backfills; None: they run in this process.
    """

    plan: FeaturePlan
    state: ProjectState
    settings: Settings
    url: Callable[[], str]
    connection: duckdb.DuckDBPyConnection
    clock: Clock
    needed: Callable[[], NeededViews] | None = None
    engine: Engine | None = None

    @property
    def redis_url(self) -> str:
        """URL of the online store."""
        return self.url()

    @property
    def stream_url(self) -> str:
        """URL of the streams of push sources."""
        return self.settings.stream_url or self.url()

    @property
    def generations(self) -> Generations:
        """Generations of the project's windowed views."""
        return Generations(self.state)

    def views(self, source: str) -> list[WindowView]:
        """Return the windowed views of a source."""
        return [view for view in self.plan.windows if view.source == source]

    def sources(self, names: Sequence[str] = ()) -> list[EventSource]:
        """Return all event sources of the plan, or those with given names.

        Raises:
            RequestError: the plan has no event source, or none with such a name.
        """
        known = {source.name: source for source in self.plan.sources}
        for name in names:
            check_known("source", name, known, problem="is not an event source of the plan")
        if not known:
            raise RequestError(
                "project", "has no event source", fix="declare a StreamFeatureView in definitions.py, then `apply`"
            )
        return [source for source in self.plan.sources if not names or source.name in names]

    def catch_up(self, source: str, store: OnlineStore) -> None:
        """Apply all rows of a source's log that the states lack, while workers may run.

        Raises:
            StoreError: the store or the disk failed.
            ConflictError: the states include more than the log.
        """
        writer = self.writer(self.plan.source(source), store)
        for partition in log_partitions(self.state, source):
            writer.catch_up(PartitionLog(self.state, partition))

    def writer(self, source: EventSource, store: OnlineStore) -> StateWriter:
        """Return a writer for the states of a source's views in a store; record the offset of this machine's clock."""
        name, needed = source.name, self.needed
        self.record_clock_skew([name], store)
        return StateWriter(
            project=self.plan.project,
            source=name,
            views=self.views(source.name),
            store=store,
            generations=self.generations,
            clock=self.clock,
            needed=None if needed is None else lambda: {v.hash for v in needed().plan.windows if v.source == name},
        )

    def record_clock_skew(self, sources: Iterable[str], store: OnlineStore) -> None:
        """Record the offset of this machine's clock for the workers of some sources, if it is their largest.

        A worker also works while the store or the database is down; then an earlier or later measurement counts.
        """
        with suppress(StoreError):
            skew_us = abs(store.clock_offset_us())
            for name in sources:
                ClockSkews(self.state.database).record(name, skew_us)

    def decoder(self, source: EventSource, views: Sequence[WindowView]) -> Decoder:
        """Return a decoder of a source's messages.

        Raises:
            DefinitionError: the source needs the schema registry or a package, and there is none.
        """
        return Decoder(source, views, self.settings.event_bytes, open_event_reader(source, self.settings))

    def open_stream(self, source: EventSource) -> OpenStream:
        """Return a function that joins the worker group on a source's own stream: its topic, or Redis streams.

        Raises:
            DefinitionError: the connector of the source's kind is not installed, or a setting is invalid.
        """
        if source.kind != "push":
            return require_connector(source.kind).open_stream(source, self.settings, self._group, self.state.database)
        check_partitions(self.state.database, self.settings.stream_partitions)
        return lambda owner: RedisStream(
            self.stream_url,
            database=self.state.database,
            project=self.plan.project,
            source=source.name,
            n_partitions=self.settings.stream_partitions,
            owner=owner,
            group=self._group,
            keep=self.settings.stream_keep,
        )

    def open_replay(self, source: EventSource, files: Path, speed: float | None = None) -> OpenStream:
        """Return a function that opens Parquet files as the source's stream, ordered by event time."""
        return lambda owner: ParquetStream(files, owner, time_column=source.event_column, speed=speed, clock=self.clock)

    def sender(self, source: EventSource) -> EventSender:
        """Return a sender for a source's stream."""
        return open_sender(source, self.settings, project=self.plan.project, redis_url=self.stream_url)

    def retirement(self, needed: Callable[[], NeededViews], store: OnlineStore) -> Retirement:
        """Return the job that removes the states of views that nothing reads."""
        return Retirement(
            state=self.state,
            needed=needed,
            store=store,
            clock=self.clock,
            grace_us=int(self.settings.retire_hours * 3_600_000_000),
        )

    @property
    def _group(self) -> str:
        return worker_group(self.plan.project)
