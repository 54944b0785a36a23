"""Prometheus metrics of stream workers; each is described in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.infra.streams.source_counts import SourceCounts

_COUNTED = {
    "read": "Messages read from the stream",
    "accepted": "Events accepted into the log",
    "rejected": "Quarantined messages",
    "duplicates": "Messages skipped because their event was accepted before",
    "late": "Events that arrived after newer event times",
    "states": "Updated states of entities",
    "batches": "Log files written",
    "rereads": "Log rows applied from the log after a start or a failure",
}


class SourceMetrics(Collector):
    """Exposes the counts of stream workers."""

    def __init__(self, source_counts: Callable[[], Sequence[SourceCounts]]) -> None:
        self._read = source_counts
        self._source_counts: Sequence[SourceCounts] = ()

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics, each with one sample per source."""
        self._source_counts = self._read()
        for name, text in _COUNTED.items():
            counter = CounterMetricFamily(f"skewless_stream_{name}", text, labels=["source"])
            for counts in self._source_counts:
                counter.add_metric([counts.source], getattr(counts, name))
            yield counter
        yield from (
            self._gauge("lag", "Messages waiting in the stream"),
            self._gauge("partitions", "Owned partitions"),
        )
        watermark = GaugeMetricFamily(
            "skewless_stream_watermark_seconds", "Greatest accepted event time, since the epoch", labels=["source"]
        )
        trouble = GaugeMetricFamily("skewless_stream_waiting", "1 if a worker cannot continue", labels=["source"])
        for counts in self._source_counts:
            if counts.watermark_us is not None:
                watermark.add_metric([counts.source], counts.watermark_us / 1e6)
            trouble.add_metric([counts.source], float(counts.trouble is not None))
        yield from (watermark, trouble)

    def _gauge(self, name: str, text: str) -> GaugeMetricFamily:
        gauge = GaugeMetricFamily(f"skewless_stream_{name}", text, labels=["source"])
        for counts in self._source_counts:
            value = getattr(counts, name)
            if value is not None:
                gauge.add_metric([counts.source], value)
        return gauge
