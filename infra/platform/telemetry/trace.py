"""The record of one request or run that is traced; its spans are made from it after its end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from skewless.contract.trace_context import TraceContext

_ERRORS = 500  # the HTTP status from which on a server's span is an error


class Trace:
    """A request or run: its span, and the spans of its stages. Belongs to one thread until it is finished.

    Args:
        context: its span.
        parent_id: the caller's span; 0: the trace begins here.
        on_finish: receives it once.

    Attributes:
        name: of its span, one of few.
        attributes: of its span: bool, int, float or text. They must be few and bounded: no ids of entities, no values.
        started_at: its start, seconds on the clock of ``time.perf_counter``.
        ended_at: its end; 0: it is not finished.
        stages: name, start and end of each, on the same clock.
        offset_ns: of that clock, to the nanoseconds since the epoch.
        is_request: whether a server handled it.
    """

    __slots__ = (
        "_on_finish",
        "_open",
        "attributes",
        "context",
        "ended_at",
        "is_error",
        "is_request",
        "name",
        "offset_ns",
        "parent_id",
        "stages",
        "started_at",
    )

    def __init__(self, context: TraceContext, parent_id: int, on_finish: Callable[[Trace], object]) -> None:
        self.name = "POST"
        self.context = context
        self.parent_id = parent_id
        self.attributes: dict[str, Any] = {}
        self.stages: list[tuple[str, float, float]] = []
        self.is_error = False
        self.is_request = True
        self.ended_at = 0.0
        self._on_finish = on_finish
        self._open: tuple[str, float] | None = None
        self.started_at = time.perf_counter()
        # One offset for all times of a request, so that its stages stay in order if the system's clock is set.
        self.offset_ns = time.time_ns() - time.perf_counter_ns()

    @property
    def trace_id(self) -> str:
        """Return the id of the trace as 32 hexadecimal digits, as logs and collectors show it."""
        return f"{self.context.trace_id:032x}"

    def add(self, stage: str, start_s: float, end_s: float) -> None:
        """Add a stage; after the end it is too late, and nothing happens."""
        if not self.ended_at:
            self.stages.append((stage, start_s, end_s))

    def open(self, stage: str, start_s: float) -> None:
        """Begin the last stage, which ends with the request."""
        self._open = stage, start_s

    def finish(self, status: int) -> None:
        """End the request with an HTTP status; later calls do nothing."""
        if self.ended_at:
            return
        self.ended_at = time.perf_counter()
        if self._open is not None:
            self.stages.append((*self._open, self.ended_at))
        self.attributes["http.response.status_code"] = status
        self.is_error = status >= _ERRORS
        self._on_finish(self)
