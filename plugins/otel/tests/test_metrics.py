"""Prometheus series as messages of OTLP: the same numbers, labels and bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import prometheus_client.values
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, Metric
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from structlog.testing import capture_logs

from skewless.infra.platform.telemetry.port import report_metrics
from skewless_otel.metrics import encode_metrics
from tests.servers.collector import Collector, collecting, values
from tests.worlds.waiting import until


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    # In a process that has loaded Feast first, values are in files, which all registries share.
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.MutexValue)
    registry = CollectorRegistry()
    reads = Counter("reads", "Rows", ("view",), registry=registry)
    reads.labels("cards").inc(3)
    reads.labels('a"b').inc(0.5)
    Gauge("skew", "Seconds", registry=registry).set(math.nan)
    seconds = Histogram("seconds", "Time", ("stage",), buckets=(0.1, 1.0), registry=registry)
    for value in (0.05, 0.1, 0.5, 5.0):
        seconds.labels("redis").observe(value)
    Counter("never", "No series", ("x",), registry=registry)
    return registry


def encoded(registry: CollectorRegistry) -> dict[str, Metric]:
    request = ExportMetricsServiceRequest.FromString(encode_metrics(registry.collect(), {"a": "b"}, 5, 9))
    (of,) = request.resource_metrics
    assert values(of.resource.attributes) == {"a": "b"}
    return {metric.name: metric for metric in of.scope_metrics[0].metrics}


def test_each_family_keeps_its_kind_and_numbers(registry: CollectorRegistry) -> None:
    found = encoded(registry)
    assert set(found) == {"reads", "skew", "seconds"}
    reads = found["reads"].sum
    assert (reads.is_monotonic, reads.aggregation_temporality) == (True, AGGREGATION_TEMPORALITY_CUMULATIVE)
    assert {values(point.attributes)["view"]: point.as_double for point in reads.data_points} == {
        "cards": 3.0,
        'a"b': 0.5,
    }
    assert {(point.start_time_unix_nano, point.time_unix_nano) for point in reads.data_points} == {(5, 9)}
    assert math.isnan(found["skew"].gauge.data_points[0].as_double)
    (histogram,) = found["seconds"].histogram.data_points
    assert (histogram.count, histogram.sum) == (4, 5.65)
    assert (list(histogram.explicit_bounds), list(histogram.bucket_counts)) == ([0.1, 1.0], [2, 1, 1])
    assert values(histogram.attributes) == {"stage": "redis"}
    assert found["reads"].description == "Rows"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


def test_reports_come_at_intervals_and_at_the_end(
    collector: Collector, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    with report_metrics(registry.collect):
        pass
    assert not collector.paths  # only its own variable switches it on
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    with report_metrics(registry.collect):
        pass
    assert collector.paths == ["/v1/metrics"]
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "10")
    with report_metrics(registry.collect):
        until(lambda: len(collector.paths) > 3)


def test_a_failed_read_is_logged_and_the_next_report_comes(
    collector: Collector, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "10")
    reads = iter([ZeroDivisionError()])

    def read() -> Any:  # noqa: ANN401 - families
        for error in reads:
            raise error
        return registry.collect()

    with capture_logs() as lines, report_metrics(read):
        until(lambda: collector.paths)
    assert lines[0]["event"] == "metrics_report_failed"
