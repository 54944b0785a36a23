"""Garbage is collected in the event loop, some time after a file of the log, or when none comes for a while."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from skewless.serving import garbage
from skewless.serving.garbage import QuietCollector, start_collector


class Knot:
    """An object that only a collection frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def _knot() -> weakref.ref[Knot]:
    return weakref.ref(Knot())


async def _notified(collector: QuietCollector) -> None:
    """Call as the thread of the log does, then let the event loop do what is due."""
    await asyncio.to_thread(collector.notify)
    await asyncio.sleep(0)


def test_a_file_of_the_log_collects_in_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "_COLLECT_S", 0.0)
    threads: list[int] = []
    gc.callbacks.append(lambda phase, _: threads.append(threading.get_ident()) if phase == "start" else None)

    async def run() -> None:
        collector, knot = QuietCollector(asyncio.get_running_loop()), _knot()
        threads.clear()
        await _notified(collector)
        assert knot() is None

    try:
        asyncio.run(run())
    finally:
        gc.callbacks.pop()
    assert set(threads) == {threading.get_ident()}


def test_files_that_follow_each_other_collect_once() -> None:
    async def run() -> None:
        collector, knot = QuietCollector(asyncio.get_running_loop()), _knot()
        for _ in range(3):
            await _notified(collector)
        assert knot() is not None

    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()


async def test_without_a_file_of_the_log_garbage_is_collected_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "_COLLECT_S", 0.01)
    monkeypatch.setattr(garbage, "_CHECK_S", 0.01)
    gc.disable()
    try:
        _, knot = QuietCollector(asyncio.get_running_loop()), _knot()
        end = time.monotonic() + 20
        while knot() is not None:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)
    finally:
        gc.enable()


async def test_many_objects_that_stay_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(garbage, "_COLLECT_S", 0.0)
    collector, left = QuietCollector(asyncio.get_running_loop()), list[int]()
    gc.freeze()
    stay = [Knot() for _ in range(garbage._OLD_OBJECTS)]
    for _ in range(2):
        knot = _knot()
        await _notified(collector)
        left.append(len(gc.get_objects()))
        assert knot() is None
    assert len(stay) == garbage._OLD_OBJECTS
    try:
        assert max(left) < garbage._OLD_OBJECTS / 2
    finally:
        gc.unfreeze()


def test_records_that_wait_for_the_log_begin_no_collection() -> None:
    collections: list[str] = []
    start_collector()
    gc.callbacks.append(lambda phase, _: collections.append(phase))
    try:
        waiting = [[number] for number in range(100_000)]
    finally:
        gc.callbacks.pop()
        gc.unfreeze()
    assert collections == []
    assert len(waiting) == 100_000
