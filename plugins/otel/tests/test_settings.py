"""The standard variables mean the same as to OpenTelemetry's SDK; a wrong value is logged and ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from structlog.testing import capture_logs

from skewless.contract.trace_context import TraceContext
from skewless_otel.settings import OtelSettings, Sampling, read_otel_settings
from skewless_otel.traces import OtlpTracer

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}


def url(variables: Mapping[str, str]) -> str | None:
    traces = read_otel_settings(variables).traces
    return None if traces is None else traces.url


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "fraud"}, None),
        (ENDPOINT, "http://collector:4318/v1/traces"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://other/x"}, "https://other/x"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://other/x"}, "https://other/x"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "https://other/x"}, None),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, None),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": ""}, "http://collector:4318/v1/traces"),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, None),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "1"}, "http://collector:4318/v1/traces"),
    ],
)
def test_what_switches_traces_on(variables: Mapping[str, str], expected: str | None) -> None:
    assert url(variables) == expected


def test_metrics_need_their_own_variable() -> None:
    assert read_otel_settings(ENDPOINT).metrics is None
    metrics = read_otel_settings({**ENDPOINT, "OTEL_METRICS_EXPORTER": "otlp"}).metrics
    assert metrics is not None
    assert metrics.url == "http://collector:4318/v1/metrics"


def test_a_target_has_all_that_its_variables_say() -> None:
    target = read_otel_settings(
        {
            **ENDPOINT,
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b, x=y=z",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "2500",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem",
        }
    ).traces
    assert target is not None
    assert (target.headers, target.timeout_s) == ({"api-key": "a b", "x": "y=z"}, 2.5)
    assert (target.is_compressed, target.certificate) == (True, "/ca.pem")
    assert "a b" not in repr(target)


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        ("", "", Sampling(rate=1.0, follows_parent=True)),
        ("always_on", "0.1", Sampling(rate=1.0, follows_parent=False)),
        ("always_off", "", Sampling(rate=0.0, follows_parent=False)),
        ("traceidratio", "0.25", Sampling(rate=0.25, follows_parent=False)),
        ("parentbased_traceidratio", "0.01", Sampling(rate=0.01, follows_parent=True)),
        ("parentbased_always_off", "", Sampling(rate=0.0, follows_parent=True)),
        ("parentbased_traceidratio", "", Sampling(rate=1.0, follows_parent=True)),
    ],
)
def test_samplers(sampler: str, argument: str, expected: Sampling) -> None:
    variables = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    assert read_otel_settings(variables).sampling == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "inf"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "nan"),
    ],
)
def test_a_wrong_value_is_logged_and_ignored(variable: str, value: str) -> None:
    with capture_logs() as lines:
        settings = read_otel_settings({**ENDPOINT, variable: value})
    assert [(line["event"], line["variable"], line["value"]) for line in lines] == [
        ("otel_variable_ignored", variable, value)
    ]
    expected = read_otel_settings(ENDPOINT if variable != "OTEL_TRACES_EXPORTER" else {})
    assert settings == expected


@pytest.mark.parametrize("rate", ["1.5", "-0.1", "nan", "much"])
def test_a_wrong_rate_is_logged_and_counts_as_one(rate: str) -> None:
    with capture_logs() as lines:
        settings = read_otel_settings({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": rate})
    assert settings.sampling.rate == 1.0
    assert lines[0]["value"] == rate


def test_a_header_without_a_value_is_not_logged() -> None:
    with capture_logs() as lines:
        read_otel_settings({**ENDPOINT, "OTEL_EXPORTER_OTLP_HEADERS": "secret-token"})
    assert "secret" not in str(lines)


def test_the_resource_names_service_and_process() -> None:
    plain = read_otel_settings({}).resource
    assert plain["service.name"] == "skewless"
    assert plain["service.instance.id"]
    attributes = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,deployment.environment=pro%20d,service.instance.id=7"}
    assert read_otel_settings(attributes).resource.items() >= {
        ("service.name", "a"),
        ("deployment.environment", "pro d"),
        ("service.instance.id", "7"),
    }
    assert read_otel_settings({**attributes, "OTEL_SERVICE_NAME": "b"}).resource["service.name"] == "b"


class NoThread(OtlpTracer):
    """A tracer that only decides."""

    def __init__(self, settings: OtelSettings) -> None:
        self._settings, self._sampling, self._bound = settings, settings.sampling, settings.sampling.bound
        self._bits = cast("Any", iter([])).__next__


@given(st.integers(1, 2**128 - 1), st.floats(0, 1))
@example(2**64 - 1, 1.0)
@example(1, 0.0)
def test_a_ratio_decides_as_the_sdk_does(trace_id: int, rate: float) -> None:
    tracer = NoThread(OtelSettings(sampling=Sampling(rate=rate, follows_parent=False)))
    tracer._bits = lambda n: 7  # noqa: ARG005 - the id of the span
    header = TraceContext(trace_id, 5, is_sampled=False).header()
    expected = TraceIdRatioBased(rate).should_sample(None, trace_id, "x").decision is Decision.RECORD_AND_SAMPLE
    assert (tracer.begin([(b"host", b"x"), (b"traceparent", header)]) is not None) == expected
    # A trace that begins here gets its id first, and then the same decision.
    words = iter([trace_id & (2**64 - 1), trace_id >> 64, 9])
    tracer._bits = lambda n: next(words)  # noqa: ARG005
    begun = tracer.begin([])
    assert (begun is not None) == expected
    if begun is not None:
        assert begun.context.trace_id == trace_id


@given(st.booleans(), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_header_wins_over_the_rate(is_sampled: bool, rate: float) -> None:  # noqa: FBT001 - drawn
    tracer = NoThread(OtelSettings(sampling=Sampling(rate=rate, follows_parent=True)))
    tracer._bits = lambda n: 7  # noqa: ARG005
    begun = tracer.begin([(b"traceparent", TraceContext(3, 5, is_sampled).header())])
    assert (begun is not None) == is_sampled
    if begun is not None:
        assert (begun.context.trace_id, begun.parent_id) == (3, 5)


def test_without_the_propagator_callers_are_ignored() -> None:
    settings = read_otel_settings({"OTEL_PROPAGATORS": "b3", "OTEL_TRACES_SAMPLER": "parentbased_always_off"})
    tracer = NoThread(settings)
    tracer._bits = lambda n: 7  # noqa: ARG005
    assert tracer.begin([(b"traceparent", TraceContext(3, 5, is_sampled=True).header())]) is None
