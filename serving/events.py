"""Events that come over HTTP, into the streams of a project's event sources."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.contract.errors import RequestError, StoreError
from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource
from skewless.infra.packages.store import PackageStore
from skewless.infra.plans.applied_plan import AppliedPlanReader
from skewless.infra.plans.needed_views import NeededViewsMonitor
from skewless.serving.group_commit import GroupCommit

if TYPE_CHECKING:
    from skewless.infra.streams.port import EventSender

SOURCE = "event source"
_BODY_EVENTS = 32  # a body may be as long as so many of the longest events


class Events:
    """Sends to the event sources of the plan in force, and to those that only models need.

    There is one connection for each, opened when it is first used.

    Args:
        state: the project's state folder.
        store: its packages.
    """

    def __init__(self, state: Path, redis_url: str, store: PackageStore, settings: Settings) -> None:
        self._redis_url = redis_url
        self._settings = settings
        self._plan = AppliedPlanReader(state)
        self._needed = NeededViewsMonitor(state, store, settings.keep_versions)
        self._lanes: dict[str, _SenderThread] = {}

    @property
    def most_bytes(self) -> int:
        """The longest body of a request."""
        return self._settings.event_bytes * _BODY_EVENTS

    def source(self, name: str) -> EventSource:
        """Return an event source by its name.

        Raises:
            RequestError: nothing needs a source of this name.
            StalePlanError: there is no plan any more.
        """
        known: Sequence[EventSource] = ()
        for plan in (self._plan.read, lambda: self._needed.read().plan):
            known = plan().sources
            for source in known:
                if source.name == name:
                    return source
        raise RequestError(
            SOURCE,
            "is unknown",
            value=name,
            fix=f"use one of: {', '.join(item.name for item in known) or '- (the project has none)'}",
        )

    async def send(self, source: EventSource, payloads: Sequence[bytes]) -> None:
        """Put messages into a source's stream, and return when it has them.

        Raises:
            StoreError: the stream is away; some may have been sent.
            DefinitionError: the source is a Kafka topic, and its client is not installed.
        """
        lane = self._lanes.get(source.name)
        if lane is None or not lane.source.same_stream(source):
            replaced, lane = lane, _SenderThread(source, self._open(source))
            self._lanes[source.name] = lane
            if replaced is not None:
                await replaced.close()
        await lane.send(payloads)

    async def close(self) -> None:
        """Give the connections back."""
        for lane in self._lanes.values():
            await lane.close()
        self._lanes.clear()

    def _open(self, source: EventSource) -> EventSender:
        from skewless.infra.streams.senders import open_sender  # noqa: PLC0415 - for servers that are sent events

        return open_sender(
            source,
            redis_url=self._redis_url,
            project=self._plan.read().project,
            n_partitions=self._settings.stream_partitions,
            kafka=self._settings.kafka,
        )


class _SenderThread:
    """One sender, which works in a thread; what comes meanwhile is sent together afterwards."""

    def __init__(self, source: EventSource, sender: EventSender) -> None:
        self.source = source
        self._sender = sender
        self._commit = GroupCommit(self._send)
        self.send = self._commit.add

    async def close(self) -> None:
        async with self._commit.turn:
            await asyncio.to_thread(self._sender.close)

    async def _send(self, payloads: Sequence[bytes]) -> None:
        try:
            await asyncio.to_thread(self._sender.send, payloads)
        except StoreError:
            await asyncio.to_thread(self._sender.close)  # it is opened anew by the next
            raise
