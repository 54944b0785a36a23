"""A load watched over time: is its rate flat, is its memory flat?"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import redis

from benchmarks.meter import Meter, resident_bytes

_SAMPLE_S = 0.05


class Series:
    """Samples how many keys a server holds and how much memory this process takes, in a thread."""

    def __init__(self, url: str) -> None:
        """Start."""
        self._client: Any = redis.Redis.from_url(url)
        self._ended = threading.Event()
        self._points: list[tuple[float, int, int]] = []
        self._take()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def finish(self, meter: Meter) -> None:
        """Stop; note the rates of an early and a late fifth, the memory of each half, and the time to the first key."""
        self._ended.set()
        self._thread.join()
        self._take()
        self._client.close()
        seconds, keys, memory = (np.array(column, dtype=np.float64) for column in zip(*self._points, strict=True))
        share = keys / keys[-1]
        moments = np.interp([0.1, 0.3, 0.7, 0.9], share, seconds)
        fifth = keys[-1] / 5
        meter.note("early_rate", fifth / (moments[1] - moments[0]))
        meter.note("late_rate", fifth / (moments[3] - moments[2]))
        meter.note("before_seconds", float(seconds[np.argmax(share > 0)] - seconds[0]))
        meter.note("early_bytes", memory[share <= 0.5].max())
        meter.note("late_bytes", memory[share > 0.5].max())

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            self._take()

    def _take(self) -> None:
        self._points.append((time.perf_counter(), int(self._client.dbsize()), resident_bytes()))
