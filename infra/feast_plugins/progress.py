"""The progress bar that Feast shows while it materialises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

from skewless.infra.materialization.run_report import RunStep


class Bar:
    """A bar over the rows that are applied, made when their number is known.

    Args:
        build: returns a bar of a length; None: no bar is shown.
    """

    def __init__(self, build: Callable[[int], Any] | None) -> None:
        self._build = build
        self._bar: Any = None
        self._done = 0

    def __enter__(self) -> Self:
        """Return the bar; leaving the block ends it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()

    def step(self, step: RunStep) -> None:
        """Move the bar to where a run is."""
        if step.total is not None:
            self.move(step.done, step.total)

    def move(self, done: int, total: int) -> None:
        """Move the bar to so many rows."""
        if self._build is None:
            return
        if self._bar is None:
            self._bar = self._build(total)
        self._bar.update(done - self._done)
        self._done = done
