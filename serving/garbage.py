"""When the server collects garbage: requests wait for each collection, and it takes a microsecond or two an object."""

from __future__ import annotations

import asyncio
import gc
import time

# Records that wait for the log are up to 70,000 objects. They have no cycles, so a collection meanwhile frees nothing.
_YOUNG_OBJECTS = 200_000
_COLLECT_S, _CHECK_S = 5.0, 10.0
# Modules that the first requests import, and models that were loaded since, are looked at no more than once. What is in
# work at that time, and becomes a cycle later, is lost: some kilobytes for each connection.
_OLD_OBJECTS = 5_000


def start_collector() -> None:
    """Exclude existing objects from garbage collection, and let it begin only after many new objects.

    Models and libraries live as long as the process. Without this, each full collection would scan all of them. Until
    here the collector is off: the modules were frozen before the models were loaded.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])


class QuietCollector:
    """Collects garbage in the event loop when a file of the log is complete: few objects are alive then.

    Each closed connection leaves some 25 objects in a cycle, and with them its last body, so that something must
    collect: also while no file is complete, because the disk is full or all requests are rejected.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due = time.monotonic() + _COLLECT_S
        loop.call_later(_CHECK_S, self._check)

    def notify(self) -> None:
        """Collect soon, but not more often than every five seconds; any thread may call this."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _COLLECT_S
            self._loop.call_soon_threadsafe(_collect)

    def _check(self) -> None:
        if time.monotonic() >= self._due + _COLLECT_S:
            self.notify()
        self._loop.call_later(_CHECK_S, self._check)


def _collect() -> None:
    gc.collect()
    if len(gc.get_objects()) > _OLD_OBJECTS:
        gc.freeze()
