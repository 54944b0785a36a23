"""Prometheus metrics of counts: a sample for each object that has them, for example for each event source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_Counts = TypeVar("_Counts")


def collect_counts(
    prefix: str,
    label: str,
    counts: Sequence[_Counts],
    counters: Mapping[str, str],
    gauges: Mapping[str, tuple[str, Callable[[_Counts], float | None]]],
) -> Iterator[Metric]:
    """Yield a metric for each counter and gauge, also without any sample.

    Args:
        prefix: of the names of the metrics.
        label: of the samples, and the attribute that has its value.
        counters: by attribute: the help of its metric.
        gauges: by the rest of the name: the help, and a function that returns the value; None: no sample.
    """
    for name, text in counters.items():
        counter = CounterMetricFamily(f"{prefix}_{name}", text, labels=[label])
        for each in counts:
            counter.add_metric([getattr(each, label)], getattr(each, name))
        yield counter
    for name, (text, read) in gauges.items():
        gauge = GaugeMetricFamily(f"{prefix}_{name}", text, labels=[label])
        for each in counts:
            value = read(each)
            if value is not None:
                gauge.add_metric([getattr(each, label)], value)
        yield gauge
