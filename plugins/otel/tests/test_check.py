"""The check of each run of `make test`: a span and a metric arrive at a receiver of OTLP over HTTP."""

from __future__ import annotations

import time
from importlib.metadata import EntryPoints

import pytest
from prometheus_client import CollectorRegistry, Gauge

from skewless.contract.errors import DefinitionError
from skewless.infra.platform.telemetry.port import find_telemetry, report_metrics
from tests.servers.collector import collecting


def test_a_span_and_a_metric_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    Gauge("skew", "Seconds", registry=registry).set(1.5)
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
        telemetry = find_telemetry()
        assert telemetry is not None
        tracer = telemetry.open_tracer()
        assert tracer is not None
        trace = tracer.begin([])
        assert trace is not None
        trace.add("score", time.perf_counter(), time.perf_counter())
        trace.finish(200)
        tracer.close()
        with report_metrics(registry.collect):
            pass
        request, stage = collector.spans
        assert (stage.name, stage.parent_span_id) == ("score", request.span_id)
        assert collector.metrics


def test_without_the_plugin_only_a_variable_that_asks_for_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.platform.host.plugins._entry_points", lambda *_: EntryPoints())
    for variables in ({}, {"OTEL_SERVICE_NAME": "fraud"}, {"OTEL_TRACES_EXPORTER": "none"}):
        assert find_telemetry(variables) is None
    with pytest.raises(DefinitionError, match=r"'otel': is not installed.*pip install 'skewless\[otel\]'"):
        find_telemetry({"OTEL_TRACES_EXPORTER": "otlp"})
