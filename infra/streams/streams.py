"""The streams of a project: which stream each event source is, and who works on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from skewless.contract.clock import Clock
from skewless.contract.errors import RequestError
from skewless.contract.names import check_known
from skewless.contract.plan import FeaturePlan
from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.log.event_log import EventLog
from skewless.infra.log.generations import Generations
from skewless.infra.log.partitions import log_partitions, source_folder
from skewless.infra.offline.window_join import WindowJoin
from skewless.infra.online.port import OnlineStore
from skewless.infra.online.store import open_online_store
from skewless.infra.plans.needed_views import NeededViews
from skewless.infra.plans.retirement import Retirement
from skewless.infra.streams.backfill import Backfiller
from skewless.infra.streams.housekeeping import Housekeeper
from skewless.infra.streams.importing import Importer
from skewless.infra.streams.parquet_stream import ParquetStream
from skewless.infra.streams.port import EventSender
from skewless.infra.streams.redis_stream import RedisStream
from skewless.infra.streams.senders import kafka_options, open_sender
from skewless.infra.streams.state_writer import StateWriter
from skewless.infra.streams.worker import OpenStream, Worker


@dataclass(frozen=True, kw_only=True)
class Streams:
    """Opens what works on the event sources of a plan.

    Args:
        state: the project's state folder.
        url: tells where states are; asked when they are first needed.
        connection: reads the logs.
        needed: returns what has to be fed now; None: what the plan says, for ever.
    """

    plan: FeaturePlan
    state: Path
    settings: Settings
    url: Callable[[], str]
    connection: duckdb.DuckDBPyConnection
    clock: Clock
    needed: Callable[[], NeededViews] | None = None

    @property
    def redis_url(self) -> str:
        """Return where states are."""
        return self.url()

    @property
    def stream_url(self) -> str:
        """Return where the streams of push sources are."""
        return self.settings.stream_url or self.url()

    @property
    def log_root(self) -> Path:
        """Return the folder of all logs."""
        return self.state / "log"

    @property
    def generations(self) -> Generations:
        """Return which states there are."""
        return Generations(self.state)

    def views(self, source: str) -> list[WindowView]:
        """Return the windowed views that a source feeds."""
        return [view for view in self.plan.windows if view.source == source]

    def sources(self, names: Sequence[str] = ()) -> list[EventSource]:
        """Return the event sources of the plan, or some of them.

        Raises:
            RequestError: there is none, or none of such a name.
        """
        known = {source.name: source for source in self.plan.sources}
        for name in names:
            check_known("source", name, known, problem="is no event source of the plan")
        if not known:
            raise RequestError(
                "project", "has no event source", fix="declare a StreamFeatureView in definitions.py, then `apply`"
            )
        return [source for source in self.plan.sources if not names or source.name in names]

    def worker(self, source: EventSource, store: OnlineStore, open_stream: OpenStream | None = None) -> Worker:
        """Return a worker of a source that writes to a store.

        Args:
            open_stream: joins the stream; by default the source's own.
        """
        return Worker(
            source=source,
            views=self.views(source.name),
            open_stream=open_stream or self.stream(source),
            writer=self.writer(source, store),
            log_root=self.log_root,
            clock=self.clock,
            max_rows=self.settings.stream_batch_rows,
            max_bytes=self.settings.event_bytes,
        )

    def catch_up(self, source: str, store: OnlineStore) -> None:
        """Apply all that the log of a source holds and the states of its views lack, beside workers that run.

        Raises:
            StoreError: the store or the disk refused.
            ConflictError: the states hold more than the log.
        """
        writer = self.writer(self.plan.source(source), store)
        for partition in log_partitions(self.log_root, source):
            writer.catch_up(EventLog(self.log_root, partition))

    def writer(self, source: EventSource, store: OnlineStore) -> StateWriter:
        """Return what applies a source's events to the states in a store."""
        name, needed = source.name, self.needed
        return StateWriter(
            project=self.plan.project,
            log_folder=source_folder(self.log_root, source.name),
            views=self.views(source.name),
            store=store,
            generations=self.generations,
            clock=self.clock,
            needed=None if needed is None else lambda: {v.hash for v in needed().plan.windows if v.source == name},
        )

    def stream(self, source: EventSource) -> OpenStream:
        """Return what joins the group of workers on a source's own stream: its topic, or streams in Redis.

        Raises:
            DefinitionError: the settings of the Kafka client cannot be read, or it is not installed.
        """
        if source.kind == "kafka":
            from skewless.infra.streams.kafka_stream import KafkaStream  # noqa: PLC0415 - an extra that others do without

            options = kafka_options(self.settings.kafka)
            return lambda owner: KafkaStream(
                source.servers, source.topic, owner=owner, group=self._group, settings=options
            )
        return lambda owner: RedisStream(
            self.stream_url,
            project=self.plan.project,
            source=source.name,
            n_partitions=self.settings.stream_partitions,
            owner=owner,
            group=self._group,
            keep=self.settings.stream_keep,
        )

    def replayed(self, source: EventSource, files: Path, speed: float | None = None) -> OpenStream:
        """Return what reads Parquet files as if they were the source's stream, in the order of their times."""
        return lambda owner: ParquetStream(files, owner, time_column=source.event_column, speed=speed, clock=self.clock)

    def sender(self, source: EventSource) -> EventSender:
        """Return what puts events into a source's stream."""
        return open_sender(
            source,
            redis_url=self.stream_url,
            project=self.plan.project,
            n_partitions=self.settings.stream_partitions,
            kafka=self.settings.kafka,
        )

    def bootstrapper(self, store: OnlineStore) -> Backfiller:
        """Return what builds states in a store."""
        return Backfiller(
            plan=self.plan,
            log_root=self.log_root,
            generations=self.generations,
            store=store,
            join=WindowJoin(self.connection),
            clock=self.clock,
        )

    def importer(self, source: EventSource, repo: Path, *, dry_run: bool = False) -> Importer:
        """Return what appends a source's history to its log.

        Args:
            dry_run: change nothing, and say what would be done.
        """

        @contextmanager
        def open_writer() -> Iterator[StateWriter]:
            store = open_online_store(self.redis_url)
            try:
                yield self.writer(source, store)
            finally:
                store.close()

        return Importer(
            source=source,
            views=self.views(source.name),
            repo=repo,
            log_root=self.log_root,
            generations=self.generations,
            open_writer=open_writer,
            connection=self.connection,
            clock=self.clock,
            dry_run=dry_run,
        )

    def housekeeper(self, sources: Sequence[EventSource], store: OnlineStore) -> Housekeeper:
        """Return what compacts logs and removes states that nobody reads any more."""
        return Housekeeper(
            project=self.plan.project,
            log_root=self.log_root,
            views=[view for source in sources for view in self.views(source.name)],
            generations=self.generations,
            store=store,
            clock=self.clock,
        )

    def retirement(self, needed: NeededViews, store: OnlineStore) -> Retirement:
        """Return what removes the states of views that nothing reads any more."""
        return Retirement(
            state=self.state,
            needed=needed,
            store=store,
            clock=self.clock,
            grace_us=int(self.settings.retire_hours * 3_600_000_000),
        )

    @property
    def _group(self) -> str:
        return f"skewless-{self.plan.project}"
