"""Group commit: items that arrive during a write are written together by the next write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(kw_only=True)
class _Group(Generic[T]):
    items: list[T] = field(default_factory=list)
    write_task: asyncio.Task[None] | None = None


class GroupCommit(Generic[T]):
    """Collects items of concurrent callers into one write at a time. Belongs to one event loop.

    Args:
        write: makes items durable, or raises; every caller of the group receives the error.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[None]]) -> None:
        self._write = write
        self._next_group: _Group[T] | None = None
        self.lock = asyncio.Lock()  # held during each write; its holder has the target to itself

    async def add(self, items: Sequence[T]) -> None:
        """Return once the items are durable."""
        group = self._next_group
        if group is None or group.write_task is None:
            group = self._next_group = _Group()
            group.write_task = asyncio.create_task(self._commit(group))
        group.items.extend(items)
        # Shielded, because a client that disconnects must not cancel the write of others.
        await asyncio.shield(group.write_task)

    async def _commit(self, group: _Group[T]) -> None:
        async with self.lock:
            # From here on, new items go to the next group.
            self._next_group = None
            await self._write(group.items)
