"""Traces and metrics of a server for OpenTelemetry, if the standard variables switch them on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from skewless.infra.platform.telemetry.port import Telemetry, find_telemetry
from skewless.infra.platform.telemetry.trace import Trace
from skewless.serving.metrics.metrics import Metrics, render_all_workers

_RENDER_S = 2.0  # longest wait for the event loop
BeginTrace = Callable[[Sequence[tuple[bytes, bytes]]], Trace | None]


def open_telemetry(metrics: Metrics, stack: AsyncExitStack) -> BeginTrace | None:
    """Return the function that begins a request's trace; None: traces are off.

    Each worker sends its own spans and series; its resource says which process it is.

    Args:
        stack: at its end, the rest is sent.

    Raises:
        DefinitionError: OpenTelemetry is not installed.
    """
    telemetry = find_telemetry()
    if telemetry is None:
        return None
    _report_metrics(telemetry, metrics, stack)
    return _open_tracer(telemetry, metrics, stack)


def _open_tracer(telemetry: Telemetry, metrics: Metrics, stack: AsyncExitStack) -> BeginTrace | None:
    loop = asyncio.get_running_loop()

    # All series belong to the event loop; the tracer's thread calls these, too.
    def count_sent(n: int) -> None:
        loop.call_soon_threadsafe(metrics.spans_sent.inc, n)

    def count_dropped(n: int, reason: str) -> None:
        loop.call_soon_threadsafe(lambda: metrics.spans_dropped(reason).inc(n))

    tracer = telemetry.open_tracer(count_sent, count_dropped)
    if tracer is None:
        return None
    stack.push_async_callback(asyncio.to_thread, tracer.close)
    return tracer.begin


def _report_metrics(telemetry: Telemetry, metrics: Metrics, stack: AsyncExitStack) -> None:
    loop = asyncio.get_running_loop()

    def read() -> Iterable[Metric]:
        text = asyncio.run_coroutine_threadsafe(render_all_workers(metrics, None), loop).result(_RENDER_S)
        return text_string_to_metric_families(text.decode())

    reporter = telemetry.report(read)
    if reporter is not None:
        stack.push_async_callback(asyncio.to_thread, reporter.close)
