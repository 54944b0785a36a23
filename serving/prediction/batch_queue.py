"""Gathering while busy: what comes while a batch is under way is the next batch, with no added wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar, cast


class Weighted(Protocol):
    """What waits in a queue."""

    @property
    def n(self) -> int:
        """Its rows."""
        ...


T = TypeVar("T", bound=Weighted)
_PATIENCE_S = 0.02


class BatchQueue(Generic[T]):
    """Hands over what waits, in order, one batch after the other.

    What comes in one turn of the event loop is one batch, even when nothing is under way. Behind a batch that hangs
    nothing waits for longer than 20 ms: then the next one begins beside it.

    Args:
        work: deals with a batch; must not raise.
        most: rows from which on a batch takes no further item.
    """

    def __init__(self, work: Callable[[list[T]], Awaitable[None]], most: int) -> None:
        self._work = work
        self._most = most
        self._waiting: deque[tuple[T, ...]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._begun = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, *items: T) -> None:
        """Take items that are to be in one batch, as one; call it from the event loop."""
        self._waiting.append(items)
        if not self._running:
            self._start()
        elif self._timer is None:
            self._look_at(self._begun + _PATIENCE_S)

    async def drained(self) -> None:
        """Return when all that was taken has been dealt with."""
        while self._running:
            await asyncio.wait(self._running)

    def _start(self) -> None:
        task = asyncio.get_running_loop().create_task(self._run())
        self._running.add(task)

    async def _run(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            while self._waiting:
                self._begun = loop.time()
                await self._work(self._next())
                if len(self._running) > 1:
                    return  # the last one goes on
                # Those who got a reply ask again at once: one turn of the loop takes them into the next batch, which
                # costs as much for eight as for sixteen.
                await asyncio.sleep(0)
        finally:
            self._running.remove(cast("asyncio.Task[None]", task))

    def _look_at(self, moment: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(moment, self._look)

    def _look(self) -> None:
        """Begin another batch if the last one began long ago."""
        self._timer = None
        if not self._waiting:
            return
        now = asyncio.get_running_loop().time()
        if self._begun + _PATIENCE_S <= now:
            self._start()
            self._begun = now
        self._look_at(self._begun + _PATIENCE_S)

    def _next(self) -> list[T]:
        batch: list[T] = []
        rows = 0
        while self._waiting and rows < self._most:
            for item in self._waiting.popleft():
                batch.append(item)
                rows += item.n
        return batch
