"""Prometheus metrics of stream workers; each is described in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from skewless.infra.streams.partition_worker import SourceCounts

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


_GAUGES: dict[str, tuple[str, Callable[[SourceCounts], float | None]]] = {
    "lag": ("Messages waiting in the stream", lambda counts: counts.lag),
    "partitions": ("Owned partitions", lambda counts: counts.partitions),
    "watermark_seconds": (
        "Greatest accepted event time, since the epoch",
        lambda counts: None if counts.watermark_us is None else counts.watermark_us / 1e6,
    ),
    "waiting": ("1 if a worker cannot continue", lambda counts: float(counts.trouble is not None)),
}


class SourceMetrics(Collector):
    """Exposes the counts of stream workers."""

    def __init__(self, source_counts: Callable[[], Sequence[SourceCounts]]) -> None:
        self._read = source_counts

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics, each with one sample per source."""
        source_counts = self._read()
        for name, text in _COUNTED.items():
            counter = CounterMetricFamily(f"skewless_stream_{name}", text, labels=["source"])
            for counts in source_counts:
                counter.add_metric([counts.source], getattr(counts, name))
            yield counter
        for name, (text, read) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"skewless_stream_{name}", text, labels=["source"])
            for counts in source_counts:
                value = read(counts)
                if value is not None:
                    gauge.add_metric([counts.source], value)
            yield gauge
