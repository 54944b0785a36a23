"""A server measures the offset of its clock again and again, and keeps the last one while the store is down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from skewless.contract.errors import StoreError
from skewless.serving import process
from skewless.serving.prediction.predictor import Predictor


class WatchedPredictor:
    """Remembers its offsets; the last one ends the watch."""

    def __init__(self, last: int) -> None:
        self.seen: list[int] = []
        self.ended = asyncio.Event()
        self._last = last

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 - of any attribute
        if name == "skew_us":
            self.seen.append(value)
            if value == self._last:
                self.ended.set()
        super().__setattr__(name, value)


def watch(answers: Sequence[int | StoreError], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the offsets that a server has had."""
    rest = iter(answers)

    def measure(_url: str) -> int:
        answer = next(rest)
        if isinstance(answer, StoreError):
            raise answer
        return answer

    async def run() -> list[int]:
        predictor = WatchedPredictor(cast("int", answers[-1]))
        task = asyncio.create_task(process._watch_clock(cast("Predictor", predictor), "redis://nowhere"))
        await predictor.ended.wait()
        task.cancel()
        return predictor.seen

    monkeypatch.setattr(process, "_skew_us", measure)
    monkeypatch.setattr(process, "_CLOCK_SECONDS", 0.001)
    return asyncio.run(run())


def test_the_last_measurement_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    down = StoreError("store", "is down", fix="start it")
    assert watch([250_000, down, 90, down, 7], monkeypatch) == [250_000, 90, 7]
