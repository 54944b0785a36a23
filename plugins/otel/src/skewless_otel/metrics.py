"""Reports Prometheus metrics to an OpenTelemetry collector, from a thread: the same series, defined once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import Metric

from skewless.infra.platform.host.priority import lower_priority
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless_otel.otlp import OtlpSender, encode_attributes, encode_resource, encode_scope
from skewless_otel.settings import OtelSettings

if TYPE_CHECKING:
    from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, NumberDataPoint
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric as OtlpMetric

_CLOSE_S = 3.0  # at the end of the process, for the last report
_log = EventLogger()
_Labels = tuple[tuple[str, str], ...]
_Times = Mapping[str, Any]  # arguments of a data point: since when, and now; nanoseconds since the epoch


class MetricsReporter:
    """Reports metrics at intervals, and once more at the end.

    Args:
        settings: with a target for metrics.
        read: returns the current metrics; called in the thread.

    Raises:
        DefinitionError: OpenTelemetry's messages are not installed.
    """

    def __init__(self, settings: OtelSettings, read: Callable[[], Iterable[Metric]]) -> None:
        if settings.metrics is None:
            raise TypeError(settings)
        self._settings = settings
        self._read = read
        self._start_ns = time.time_ns()
        self._sender = OtlpSender("metrics", settings.metrics)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send the last report, for three seconds at most."""
        self._closed.set()
        self._sender.stop()
        self._thread.join(_CLOSE_S)
        self._sender.close()

    def _run(self) -> None:
        lower_priority()
        while not self._closed.wait(self._settings.interval_s):
            self._report(None)
        self._report(_CLOSE_S)

    def _report(self, timeout_s: float | None) -> None:
        try:
            body = encode_metrics(self._read(), self._settings.resource, self._start_ns, time.time_ns())
            self._sender.send(body, timeout_s)
        except Exception:  # noqa: BLE001 - a defect must not end the thread
            _log.exception("metrics_report_failed")


def encode_metrics(families: Iterable[Metric], resource: Mapping[str, str], start_ns: int, now_ns: int) -> bytes:
    """Return metrics as a request of OTLP: counters and histograms are cumulative since the start.

    Args:
        resource: attributes of the process.
        start_ns: since the epoch, as ``now_ns``.
    """
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (  # noqa: PLC0415 - see check_installed
        ExportMetricsServiceRequest,
    )
    from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics, ScopeMetrics  # noqa: PLC0415

    times = {"start_time_unix_nano": start_ns, "time_unix_nano": now_ns}
    metrics = [_encode(family, times) for family in families if family.samples]
    scope = ScopeMetrics(scope=encode_scope(), metrics=metrics)
    request = ExportMetricsServiceRequest(
        resource_metrics=[ResourceMetrics(resource=encode_resource(resource), scope_metrics=[scope])]
    )
    return bytes(request.SerializeToString())


def _encode(family: Metric, times: _Times) -> OtlpMetric:
    from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp  # noqa: PLC0415 - see check_installed

    data: dict[str, Any]
    if family.type == "histogram":
        data = {
            "histogram": otlp.Histogram(
                data_points=list(_histograms(family, times)),
                aggregation_temporality=otlp.AGGREGATION_TEMPORALITY_CUMULATIVE,
            )
        }
    elif family.type == "counter":
        data = {
            "sum": otlp.Sum(
                data_points=list(_numbers(family, times)),
                aggregation_temporality=otlp.AGGREGATION_TEMPORALITY_CUMULATIVE,
                is_monotonic=True,
            )
        }
    else:
        data = {"gauge": otlp.Gauge(data_points=list(_numbers(family, {"time_unix_nano": times["time_unix_nano"]})))}
    return otlp.Metric(name=family.name, description=family.documentation, **data)


def _numbers(family: Metric, times: _Times) -> Iterator[NumberDataPoint]:
    from opentelemetry.proto.metrics.v1.metrics_pb2 import NumberDataPoint  # noqa: PLC0415 - see check_installed

    for sample in family.samples:
        if not sample.name.endswith("_created"):
            yield NumberDataPoint(as_double=sample.value, attributes=encode_attributes(sample.labels), **times)


def _histograms(family: Metric, times: _Times) -> Iterator[HistogramDataPoint]:
    from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint  # noqa: PLC0415 - see check_installed

    buckets: dict[_Labels, list[tuple[float, float]]] = {}
    sums: dict[_Labels, float] = {}
    for sample in family.samples:
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        if sample.name.endswith("_bucket"):
            buckets.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
        elif sample.name.endswith("_sum"):
            sums[labels] = sample.value
    for labels, cumulative in buckets.items():
        bounds, counts = zip(*sorted(cumulative), strict=True)
        yield HistogramDataPoint(
            count=int(counts[-1]),
            sum=sums.get(labels, 0.0),
            explicit_bounds=bounds[:-1],  # the last one is infinite
            bucket_counts=_differences(counts),
            attributes=encode_attributes(dict(labels)),
            **times,
        )


def _differences(cumulative: Sequence[float]) -> list[int]:
    return [int(now - before) for before, now in zip((0, *cumulative), cumulative, strict=False)]
