"""The exporter to a collector, as the port of the core wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import Metric

from skewless_otel.metrics import MetricsReporter
from skewless_otel.settings import read_otel_settings
from skewless_otel.traces import OtlpTracer


class Exporter:
    """Sends traces and metrics over OTLP/HTTP, as the variables say; see ``Telemetry`` of the core."""

    def __init__(self) -> None:
        self._settings = read_otel_settings()

    def open_tracer(
        self,
        on_sent: Callable[[int], object] = lambda _: None,
        on_drop: Callable[[int, str], object] = lambda _n, _reason: None,
    ) -> OtlpTracer | None:
        """Return a tracer; None: traces are off."""
        return None if self._settings.traces is None else OtlpTracer(self._settings, on_sent, on_drop)

    def report(self, read: Callable[[], Iterable[Metric]]) -> MetricsReporter | None:
        """Begin to report metrics; None: they are off."""
        return None if self._settings.metrics is None else MetricsReporter(self._settings, read)
