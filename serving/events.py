"""Forwarding of events from HTTP requests to the streams of a project's event sources."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from skewless.contract.errors import RequestError, SkewlessError, StoreError
from skewless.contract.settings import Settings
from skewless.contract.spec import LogPolicy
from skewless.contract.windows.view import EventSource
from skewless.infra.definitions.plans.applied_plan import AppliedPlanReader
from skewless.infra.definitions.plans.needed_views import NeededViewsMonitor
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.shared_facts import check_partitions
from skewless.infra.platform.telemetry.logger import EventLogger

if TYPE_CHECKING:
    from skewless.infra.ingest.streams.port import EventSender

SOURCE = "event source"
_log = EventLogger()
_BODY_EVENTS = 32  # maximum length of a body, as a number of events of maximum length
T = TypeVar("T")


class GroupCommit(Generic[T]):
    """Collects items of concurrent callers into one write at a time. Belongs to one event loop.

    Args:
        write: makes items durable, or raises; every caller of the group receives the error.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[None]]) -> None:
        self._write = write
        self._next_items: list[T] = []
        self._next_write: asyncio.Task[None] | None = None
        self.lock = asyncio.Lock()  # held during each write; its holder has the target to itself

    async def add(self, items: Sequence[T]) -> None:
        """Return once the items are durable."""
        self._next_items.extend(items)
        if self._next_write is None:
            self._next_write = asyncio.create_task(self._commit())
        # Shielded, because a client that disconnects must not cancel the write of others.
        await asyncio.shield(self._next_write)

    async def _commit(self) -> None:
        async with self.lock:
            # From here on, new items go to the next group.
            items, self._next_items, self._next_write = self._next_items, [], None
            await self._write(items)


class EventForwarder:
    """Forwards events to the sources of the applied plan, and to sources that only model versions need.

    Each source has one connection, and one for events whose log is required; they are opened on first use.

    Args:
        state: the project's state folder.
        store: the model packages.
    """

    def __init__(self, state: ProjectState, redis_url: str, store: PackageStore, settings: Settings) -> None:
        self._database = state.database
        self._redis_url = redis_url
        self._settings = settings
        self._needed = NeededViewsMonitor(state, store, settings.keep_versions)
        self._plan = AppliedPlanReader(state)
        self._project = ""
        self._sources: dict[str, EventSource] = {}
        self._problem: SkewlessError | None = None
        self._threads: dict[tuple[str, LogPolicy], _SenderThread] = {}
        self.refresh()

    @property
    def max_bytes(self) -> int:
        """Maximum length of a request body."""
        return self._settings.event_bytes * _BODY_EVENTS

    def refresh(self) -> None:
        """Read the sources again; it waits for the database. While they cannot be read, the last ones stay in use."""
        try:
            plan = self._plan.read()
            applied = {source.name: source for source in plan.sources}
            self._project, self._sources = plan.project, self._sources | applied
            # The applied plan's definition of a source comes first: the other one may have columns of older views.
            self._sources = {source.name: source for source in self._needed.read().plan.sources} | applied
            self._problem = None
        except SkewlessError as error:
            if str(error) != str(self._problem):
                _log.warning("event_sources_not_read", error=str(error))
            self._problem = error

    def source(self, name: str) -> EventSource:
        """Return an event source by name.

        Raises:
            RequestError: neither the plan nor a model has a source of this name.
            SkewlessError: the sources cannot be read, and this one was not among the last ones.
        """
        if name in self._sources:
            return self._sources[name]
        if self._problem is not None:
            raise self._problem
        known = ", ".join(self._sources) or "- (the project has no event source)"
        raise RequestError(SOURCE, "is unknown", value=name, fix=f"use one of: {known}")

    async def send(self, source: EventSource, payloads: Sequence[bytes], log: LogPolicy = "best_effort") -> None:
        """Send messages to a source's stream, and return when the stream, or the required log, has stored them.

        Raises:
            StoreError: the stream or the log is unavailable; some messages may have been sent.
            RequestError: the log is required, and the source is a Kafka topic.
            DefinitionError: the source is a Kafka topic, and the Kafka client is not installed.
        """
        thread = self._threads.get((source.name, log))
        if thread is None or not thread.source.same_stream(source):
            replaced, thread = thread, _SenderThread(source, self._open(source, log))
            # Before the await: concurrent requests must use the new connection.
            self._threads[source.name, log] = thread
            if replaced is not None:
                await replaced.close()
        await thread.send(payloads)

    async def close(self) -> None:
        """Close the connections."""
        for thread in self._threads.values():
            await thread.close()
        self._threads.clear()

    def _open(self, source: EventSource, log: LogPolicy) -> EventSender:
        from skewless.infra.ingest.streams.redis_link import open_sender  # noqa: PLC0415 - loaded with the first event

        check_partitions(self._database, self._settings.stream_partitions)
        return open_sender(source, self._settings, project=self._project, redis_url=self._redis_url, log=log)


class _SenderThread:
    """One sender that works in a thread; messages that arrive during a send are sent together afterwards."""

    def __init__(self, source: EventSource, sender: EventSender) -> None:
        self.source = source
        self._sender = sender
        self._commit = GroupCommit(self._send)
        self.send = self._commit.add

    async def close(self) -> None:
        async with self._commit.lock:
            await asyncio.to_thread(self._sender.close)

    async def _send(self, payloads: Sequence[bytes]) -> None:
        try:
            await asyncio.to_thread(self._sender.send, payloads)
        except StoreError:
            await asyncio.to_thread(self._sender.close)  # the next send opens it again
            raise
