"""One span for each run that has ended, under the trace that its command was told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from skewless.contract.trace_context import parse_traceparent
from skewless.infra.platform.jobs.run import Run, RunId, State
from skewless.infra.platform.jobs.traces import open_run_traces
from skewless.infra.platform.telemetry.logger import add_trace_id
from tests.servers.collector import Collector, collecting, values

START_US = 1_768_478_400_123_456


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        yield collector


def run(job: str, state: State = "done", token: int = 1) -> Run:
    run_id = RunId(job=job, tick_us=START_US)
    return Run(id=run_id, cause="c", token=token, started_us=START_US, state=state, ended_us=START_US + 2_500_000)


def test_a_run_becomes_one_span(collector: Collector) -> None:
    trained, failed = run("train fraud"), run("materialize", "failed")
    with open_run_traces("p") as traces:
        told = parse_traceparent(traces.variables(trained)["TRACEPARENT"].encode())
        for each in (trained, failed):
            traces.record(each)
        traces.record(run("drift", "running"))  # its end is recorded
    first, second, _ = collector.spans
    assert told is not None
    assert (first.trace_id, first.span_id) == (told.trace_id.to_bytes(16, "big"), told.span_id.to_bytes(8, "big"))
    assert told.is_sampled
    assert (first.name, first.kind, first.status.code) == (
        "run train",
        Span.SPAN_KIND_INTERNAL,
        Status.STATUS_CODE_UNSET,
    )
    assert (first.start_time_unix_nano, first.end_time_unix_nano) == (
        START_US * 1_000,
        (START_US + 2_500_000) * 1_000,
    )
    assert values(first.attributes) == {
        "skewless.run": str(trained.id),
        "skewless.job": "train",
        "skewless.subject": "fraud",
        "skewless.state": "done",
    }
    assert (second.name, second.status.code) == ("run materialize", Status.STATUS_CODE_ERROR)


def test_ids_differ_between_projects_and_terms() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_TRACES_EXPORTER", "otlp")
        found = set()
        for project, token in (("p", 1), ("q", 1), ("p", 2), ("p", 1)):
            with open_run_traces(project) as traces:
                found.add(traces.variables(run("drift", token=token))["TRACEPARENT"])
    assert len(found) == 3


def test_a_sampler_leaves_runs_out(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with open_run_traces("p") as traces:
        traces.record(run("drift"))
        assert traces.variables(run("drift"))["TRACEPARENT"].endswith("-00")
    assert not collector.spans


def test_without_the_variables_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with open_run_traces("p") as traces:
        assert traces.variables(run("drift")) == {}
        traces.record(run("drift"))


def test_log_lines_of_a_command_name_its_trace(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run_traces("p") as traces:
        told = traces.variables(run("train fraud"))["TRACEPARENT"]
    monkeypatch.setenv("TRACEPARENT", told)
    assert add_trace_id(None, "info", {"event": "x"}) == {"event": "x", "trace_id": told[3:35]}
    assert add_trace_id(None, "info", {"event": "x", "trace_id": "own"})["trace_id"] == "own"
    monkeypatch.setenv("TRACEPARENT", "00-zz")
    assert add_trace_id(None, "info", {"event": "x"}) == {"event": "x"}
    assert not collector.spans
