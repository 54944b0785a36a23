"""Group commit: what callers hand over while a write is under way is written together, next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(kw_only=True)
class _Group(Generic[T]):
    items: list[T] = field(default_factory=list)
    written: asyncio.Task[None] | None = None


class GroupCommit(Generic[T]):
    """Belongs to one event loop.

    Args:
        write: makes items durable, or raises: then each of those who handed them over is told.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[None]]) -> None:
        self._write = write
        self._gathering: _Group[T] | None = None
        self.turn = asyncio.Lock()  # who holds it is alone with what is written to

    async def add(self, items: Sequence[T]) -> None:
        """Return once items are durable."""
        group = self._gathering
        if group is None or group.written is None:
            group = self._gathering = _Group()
            group.written = asyncio.create_task(self._commit(group))
        group.items.extend(items)
        # A client that goes away must not stop what others wait for.
        await asyncio.shield(group.written)

    async def _commit(self, group: _Group[T]) -> None:
        async with self.turn:
            self._gathering = None
            await self._write(group.items)
