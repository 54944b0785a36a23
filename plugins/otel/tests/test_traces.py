"""Spans reach a collector over OTLP/HTTP, or are counted as dropped; a request never waits for them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from structlog.testing import capture_logs

from skewless.contract.trace_context import TraceContext
from skewless.infra.platform.telemetry.trace import Trace
from skewless_otel import traces as module
from skewless_otel.settings import OtelSettings, OtlpTarget
from skewless_otel.traces import OtlpTracer
from tests.servers.collector import Collector, collecting, values
from tests.worlds.waiting import until


@dataclass
class CountedTracer:
    """A tracer, and its counts."""

    tracer: OtlpTracer
    sent: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)

    def begin(self, parent: TraceContext | None = None) -> Trace:
        headers = [] if parent is None else [(b"traceparent", parent.header())]
        begun = self.tracer.begin(headers)
        assert begun is not None
        return begun

    def request(self, status: int = 200, stages: int = 0) -> None:
        request = self.begin()
        for i in range(stages):
            request.add(f"s{i}", time.perf_counter(), time.perf_counter())
        request.finish(status)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@contextmanager
def tracing(url: str, settings: OtelSettings | None = None, timeout_s: float = 5.0) -> Iterator[CountedTracer]:
    settings = replace(settings or OtelSettings(), traces=OtlpTarget(url=f"{url}/v1/traces", timeout_s=timeout_s))
    counted: list[CountedTracer] = []

    def drop(n: int, reason: str) -> None:
        counted[0].dropped[reason] += n

    sent: list[int] = []
    tracer = OtlpTracer(settings, sent.append, drop)
    counted.append(CountedTracer(tracer, sent))
    try:
        yield counted[0]
    finally:
        tracer.close()


def test_a_request_and_its_stages_become_spans(collector: Collector) -> None:
    parent = TraceContext(2**127 + 5, 77, is_sampled=True)
    before_ns = time.time_ns()
    with tracing(collector.url, OtelSettings(resource={"service.name": "fraud"})) as traced:
        request = traced.begin(parent)
        request.name = "POST /predict"
        request.attributes |= {"rows": 3, "model": "fraud", "ok": True}
        first = request.started_at
        request.add("parse", first, first + 0.001)
        request.add("redis", first + 0.001, first + 0.002)
        time.sleep(0.01)
        request.open("encode", first + 0.003)
        request.finish(200)
        request.finish(500)
        request.add("late", first, first)
    assert traced.sent == [4]
    assert not traced.dropped
    (root,) = collector.roots()
    assert (root.trace_id, root.parent_span_id) == ((2**127 + 5).to_bytes(16, "big"), (77).to_bytes(8, "big"))
    assert root.span_id == request.context.span_id.to_bytes(8, "big")
    assert values(root.attributes) == {"rows": 3, "model": "fraud", "ok": True, "http.response.status_code": 200}
    assert root.status.code == Status.STATUS_CODE_UNSET
    children = collector.children(root)
    assert [child.name for child in children] == ["parse", "redis", "encode"]
    assert len({span.span_id for span in collector.spans}) == 4
    ends = [root.start_time_unix_nano]
    for child in children:
        assert child.trace_id == root.trace_id
        assert ends[-1] <= child.start_time_unix_nano <= child.end_time_unix_nano <= root.end_time_unix_nano
        ends.append(child.end_time_unix_nano)
    assert ends[-1] == root.end_time_unix_nano
    assert before_ns <= root.start_time_unix_nano <= root.end_time_unix_nano - 10_000_000 <= time.time_ns()
    assert collector.resources == [{"service.name": "fraud"}]


def test_an_error_of_the_server_is_an_error(collector: Collector) -> None:
    with tracing(collector.url) as traced:
        for status in (400, 503):
            traced.request(status)
    codes = [span.status.code for span in collector.roots()]
    assert codes == [Status.STATUS_CODE_UNSET, Status.STATUS_CODE_ERROR]
    assert {(span.kind, span.parent_span_id) for span in collector.spans} == {(Span.SPAN_KIND_SERVER, b"")}


def test_a_full_batch_is_sent_before_the_delay(collector: Collector) -> None:
    with tracing(collector.url, OtelSettings(delay_s=600, batch_spans=4)) as traced:
        for _ in range(4):
            traced.request()
        until(lambda: traced.sent == [4])


def test_spans_are_sent_after_the_delay(collector: Collector) -> None:
    with tracing(collector.url, OtelSettings(delay_s=0.01)) as traced:
        traced.request(stages=2)
        until(lambda: traced.sent == [3])


def test_headers_and_compression(collector: Collector) -> None:
    target = OtlpTarget(url=f"{collector.url}/v1/traces", headers={"x-team": "risk"}, is_compressed=True)
    sent: list[int] = []
    tracer = OtlpTracer(OtelSettings(traces=target), sent.append, lambda n, why: pytest.fail(f"{n} {why}"))
    begun = tracer.begin([])
    assert begun is not None
    begun.finish(200)
    tracer.close()
    (headers,) = collector.headers
    assert (headers["x-team"], headers["content-encoding"]) == ("risk", "gzip")
    assert headers["content-type"] == "application/x-protobuf"
    assert (sent, len(collector.spans)) == ([1], 1)


def test_a_busy_collector_gets_them_again(collector: Collector) -> None:
    collector.statuses += [503, 429]
    with tracing(collector.url, OtelSettings(delay_s=0.01)) as traced:
        traced.request()
        until(lambda: traced.sent == [1])
    assert (len(collector.paths), len(collector.spans)) == (3, 1)
    assert not traced.dropped


def test_what_a_collector_refuses_is_counted_and_logged_once(collector: Collector) -> None:
    collector.statuses += [400, 400]
    with capture_logs() as lines, tracing(collector.url, OtelSettings(delay_s=0.01)) as traced:
        for n in (2, 4):
            traced.request(stages=1)
            until(lambda n=n: traced.dropped == {"collector": n})  # type: ignore[misc]
        traced.request()
        until(lambda: traced.sent == [1])
    assert [line["event"] for line in lines] == ["otlp_not_sent", "otlp_sent_again"]
    assert lines[0]["reason"] == "HTTP status 400"


def test_a_collector_that_is_away_costs_the_spans_alone() -> None:
    with tracing("http://127.0.0.1:1", OtelSettings(delay_s=0.01), timeout_s=0.2) as traced:
        traced.request(stages=3)
        until(lambda: traced.dropped == {"collector": 4})


def test_a_full_queue_drops_and_counts(collector: Collector) -> None:
    collector.open.clear()
    with tracing(collector.url, OtelSettings(delay_s=0.001, queue_spans=6, batch_spans=4)) as traced:
        traced.request(stages=3)
        until(lambda: traced.tracer._sending == 4)  # the collector does not reply
        for _ in range(4):
            traced.request(stages=1)
        assert traced.dropped == {"full": 2}
        collector.open.set()
        until(lambda: sum(traced.sent) == 10)
    assert len(collector.roots()) == 4


def test_the_end_waits_only_so_long(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLOSE_S", 0.2)
    collector.open.clear()
    with capture_logs() as lines, tracing(collector.url, OtelSettings(delay_s=0.001, batch_spans=2)) as traced:
        traced.request(stages=1)
        until(lambda: traced.tracer._sending == 2)
        traced.request()
        start = time.monotonic()
        traced.tracer.close()
        assert time.monotonic() - start < 5
        collector.open.set()
        traced.tracer._thread.join()
        assert traced.dropped["shutdown"] == 3
        traced.request()
        assert traced.dropped["full"] == 1  # nobody would send it
    assert [line["event"] for line in lines][:1] == ["traces_dropped"]


def test_a_defect_does_not_end_the_thread(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs() as lines, tracing(collector.url, OtelSettings(delay_s=0.01)) as traced:
        request = traced.begin()
        request.attributes["bad"] = object()
        request.finish(200)
        until(lambda: traced.dropped == {"collector": 1})
        monkeypatch.undo()
        traced.request()
        until(lambda: traced.sent == [1])
    assert lines[0]["event"] == "traces_failed"
