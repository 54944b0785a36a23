"""Prometheus metrics of stream workers; each is described in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.infra.streams.source_counts import SourceCounts

_COUNTED = {
    "read": "Messages taken from the stream",
    "accepted": "Events accepted into the log",
    "rejected": "Messages in quarantine",
    "duplicates": "Messages left out because their event had come before",
    "late": "Events that came after later ones",
    "states": "States of entities that were changed",
    "batches": "Log files written",
    "rereads": "Log rows applied from the log, after a start or a failure",
}


class SourceMetrics(Collector):
    """Shows what workers count."""

    def __init__(self, tallies: Callable[[], Sequence[SourceCounts]]) -> None:
        self._read = tallies
        self._tallies: Sequence[SourceCounts] = ()

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics, each with a sample for every source."""
        self._tallies = self._read()
        for name, text in _COUNTED.items():
            counter = CounterMetricFamily(f"skewless_stream_{name}", text, labels=["source"])
            for tally in self._tallies:
                counter.add_metric([tally.source], getattr(tally, name))
            yield counter
        yield from (
            self._gauge("lag", "Messages that wait in the stream"),
            self._gauge("partitions", "Owned partitions"),
        )
        watermark = GaugeMetricFamily(
            "skewless_stream_watermark_seconds", "Greatest event time accepted, since the epoch", labels=["source"]
        )
        trouble = GaugeMetricFamily("skewless_stream_waiting", "1 where a worker cannot go on", labels=["source"])
        for tally in self._tallies:
            if tally.watermark_us is not None:
                watermark.add_metric([tally.source], tally.watermark_us / 1e6)
            trouble.add_metric([tally.source], float(tally.trouble is not None))
        yield from (watermark, trouble)

    def _gauge(self, name: str, text: str) -> GaugeMetricFamily:
        gauge = GaugeMetricFamily(f"skewless_stream_{name}", text, labels=["source"])
        for tally in self._tallies:
            value = getattr(tally, name)
            if value is not None:
                gauge.add_metric([tally.source], value)
        return gauge
