"""Batching without added wait: items that arrive while a batch is running form the next batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar, cast


class WeightedItem(Protocol):
    """An item of a queue, with its weight."""

    @property
    def n(self) -> int:
        """Number of rows."""
        ...


T = TypeVar("T", bound=WeightedItem)
_MAX_WAIT_S = 0.02  # longest wait behind a batch that hangs


class BatchQueue(Generic[T]):
    """Process items in order, one batch after the other.

    Items of one turn of the event loop form one batch, even if no batch is running. An item waits at most 20 ms behind
    a batch that hangs: then the next batch starts concurrently.

    Args:
        work: processes a batch; must not raise.
        max_rows: number of rows from which a batch takes no further item.
    """

    def __init__(self, work: Callable[[list[T]], Awaitable[None]], max_rows: int) -> None:
        self._work = work
        self._max_rows = max_rows
        self._pending: deque[tuple[T, ...]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._started_at = 0.0

    def __len__(self) -> int:
        return len(self._pending)

    def put(self, *items: T) -> None:
        """Add items that must be in one batch; call this from the event loop."""
        self._pending.append(items)
        if not self._running:
            self._start()
        elif self._timer is None:
            self._schedule_check(self._started_at + _MAX_WAIT_S)

    async def drain(self) -> None:
        """Return when all items are processed."""
        while self._running:
            await asyncio.wait(self._running)

    def _start(self) -> None:
        task = asyncio.get_running_loop().create_task(self._run())
        self._running.add(task)

    async def _run(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            # No await lies between the last check of `_pending` and the removal below: a later item starts a new task.
            while self._pending:
                self._started_at = loop.time()
                await self._work(self._pop_batch())
                if len(self._running) > 1:
                    return  # a batch that started later takes the next items
                # Clients that received a reply send their next request at once. One turn of the loop brings these into
                # the next batch, and a batch of sixteen costs hardly more than one of eight.
                await asyncio.sleep(0)
        finally:
            self._running.remove(cast("asyncio.Task[None]", task))

    def _schedule_check(self, at_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_at(at_s, self._check_running)

    def _check_running(self) -> None:
        """Start another batch if the last one has been running for too long."""
        self._timer = None
        if not self._pending:
            return
        now = asyncio.get_running_loop().time()
        if self._started_at + _MAX_WAIT_S <= now:
            self._start()
            self._started_at = now
        self._schedule_check(self._started_at + _MAX_WAIT_S)

    def _pop_batch(self) -> list[T]:
        batch: list[T] = []
        rows = 0
        # An item that is larger than the limit still gets a batch: the limit is checked before it is taken.
        while self._pending and rows < self._max_rows:
            for item in self._pending.popleft():
                batch.append(item)
                rows += item.n
        return batch
