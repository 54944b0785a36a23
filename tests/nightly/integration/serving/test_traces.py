"""A real server and a real collector: spans, the caller's decision, the log, the end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import duckdb
import pyarrow.parquet as pq
import pytest
from opentelemetry import context
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from prometheus_client.parser import text_string_to_metric_families

from skewless.client import Client
from skewless.contract.trace_context import TraceContext, parse_traceparent
from skewless.infra.records.predictions.segments import prediction_files
from skewless.project import Project
from tests.docs.pages import blocks, page
from tests.servers.collector import Collector, collecting, values
from tests.servers.prediction import PredictionServer
from tests.worlds.trained import MODEL, ask, opened_copy
from tests.worlds.waiting import until

BODY = json.dumps({"rows": ask(2)}).encode()
STAGES = ["parse", "queue", "redis", "assemble", "predict", "encode"]
PARENT = TraceContext(0xABC << 100, 0xDEF, is_sampled=True)
FEW = {
    "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    "OTEL_BSP_SCHEDULE_DELAY": "20",
    "OTEL_SERVICE_NAME": "fraud-api",
}


@pytest.fixture(scope="module")
def repo(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A trained project, whose private server stays for all tests."""
    with opened_copy(trained, tmp_path_factory.mktemp("traces") / "p") as place:
        yield place.repo


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@contextmanager
def serving_to(repo: Path, collector: Collector, **variables: str) -> Iterator[PredictionServer]:
    settings = {"SKEWLESS_PORT": "0", "SKEWLESS_CLOCK": f"file:{repo}/.skewless/clock", "SKEWLESS_LOG": "json"}
    settings |= {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **FEW, **variables}
    server = PredictionServer.start(repo, **settings)
    with server.process:
        try:
            yield server
        finally:
            server.process.kill()


@pytest.fixture(scope="module")
def server(repo: Path, collector: Collector) -> Iterator[PredictionServer]:
    """A server that traces the requests whose callers do."""
    metrics = {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_METRIC_EXPORT_INTERVAL": "200"}
    own = {"FASTAPI_OTEL_AUTO_CONFIGURE": "true"}  # FastAPI's own telemetry must stay off
    with serving_to(repo, collector, **metrics, **own) as server:
        yield server


def post(
    server: PredictionServer, path: str = "/predict", body: bytes = BODY, **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def traced(collector: Collector, headers: Mapping[str, str]) -> Span:
    """Return the span that a reply names, once the collector has it."""
    named = parse_traceparent(headers["traceresponse"].encode())
    assert named is not None
    span_id = named.span_id.to_bytes(8, "big")
    until(lambda: [span for span in collector.spans if span.span_id == span_id])
    (root,) = (span for span in collector.spans if span.span_id == span_id)
    assert root.trace_id == named.trace_id.to_bytes(16, "big")
    return root


def test_a_prediction_has_its_stages_below_the_callers_span(server: PredictionServer, collector: Collector) -> None:
    status, headers, _ = post(server, traceparent=PARENT.header().decode())
    root = traced(collector, headers)
    assert (status, root.name, root.kind) == (200, "POST /predict", Span.SPAN_KIND_SERVER)
    assert root.trace_id == PARENT.trace_id.to_bytes(16, "big")
    assert root.parent_span_id == PARENT.span_id.to_bytes(8, "big")
    assert values(root.attributes) == {
        "http.request.method": "POST",
        "http.route": "/predict",
        "http.response.status_code": 200,
        "skewless.model": MODEL,
        "skewless.version": "000001",
        "skewless.rows": 2,
        "skewless.outcome": "ok",
    }
    children = collector.children(root)
    assert [child.name for child in children] == STAGES
    end_ns = root.start_time_unix_nano
    for child in children:
        assert end_ns <= child.start_time_unix_nano <= child.end_time_unix_nano <= root.end_time_unix_nano
        assert not child.attributes
        end_ns = child.end_time_unix_nano
    resource = collector.resources[-1]
    assert (resource["service.name"], resource["service.instance.id"].rpartition(":")[2]) == (
        "fraud-api",
        str(server.process.pid),
    )


def test_the_protocol_of_inference_is_traced_too(server: PredictionServer, collector: Collector) -> None:
    rows = ask(3)
    kinds = {"card_id": "INT64", "shop_id": "BYTES", "amount": "FP64", "paid_at": "INT64"}
    inputs = [
        {"name": name, "datatype": kind, "shape": [3, 1], "data": [row[name] for row in rows]}
        for name, kind in kinds.items()
    ]
    body = json.dumps({"inputs": inputs}).encode()
    status, headers, reply = post(server, f"/v2/models/{MODEL}/infer", body, traceparent=PARENT.header().decode())
    assert status == 200, reply
    root = traced(collector, headers)
    assert (root.name, values(root.attributes)["skewless.rows"]) == ("POST /v2/models/{model}/infer", 3)
    assert [child.name for child in collector.children(root)] == STAGES


def test_the_request_of_the_page(server: PredictionServer) -> None:
    (text,) = blocks(page("traces.md"), "console")
    sent, shown = re.findall(r"(00-[0-9a-f-]{52})", text)
    named = post(server, traceparent=sent)[1]["traceresponse"]
    assert (len(named), named[:36], named[-3:]) == (len(shown), shown[:36], shown[-3:])


@pytest.mark.parametrize(
    "header",
    [
        None,
        PARENT._replace(is_sampled=False).header().decode(),
        "00-abc-def-01",
        "x" * 2_000,
        PARENT.header().decode()[:-1],
    ],
)
def test_without_a_sampled_header_nothing_is_traced(server: PredictionServer, header: str | None) -> None:
    status, headers, _ = post(server, "/predict", BODY, **({} if header is None else {"traceparent": header}))
    assert (status, "traceresponse" in headers) == (200, False)


def test_an_error_has_its_kind_and_no_value_of_the_caller(server: PredictionServer, collector: Collector) -> None:
    body = json.dumps({"rows": [{**ask(1)[0], "card_id": "secret-4711"}]}).encode()
    status, headers, _ = post(server, body=body, traceparent=PARENT.header().decode())
    root = traced(collector, headers)
    found = values(root.attributes)
    assert (status, found["http.response.status_code"], found["error.type"]) == (400, 400, "request")
    assert (found["skewless.outcome"], root.status.code) == ("request", Status.STATUS_CODE_UNSET)
    post(server, body=b'{"rows": [{"secret-4711": 1}], "model": "secret-4711"}', traceparent=PARENT.header().decode())
    until(lambda: len([span for span in collector.roots() if "error.type" in values(span.attributes)]) >= 2)
    assert b"4711" not in b"".join(collector.bodies)
    assert str(ask(1)[0]["card_id"]).encode() not in b"".join(collector.bodies)


def test_the_log_row_names_the_trace_and_replay_stays_exact(
    server: PredictionServer, repo: Path, collector: Collector
) -> None:
    parent = PARENT._replace(trace_id=0x4711)
    _, headers, reply = post(server, traceparent=parent.header().decode())
    ids = [row["id"] for row in json.loads(reply)["predictions"]]
    _, _, reply = post(server)
    untraced = json.loads(reply)["predictions"][0]["id"]
    traced(collector, headers)
    with Project(repo) as project:
        logged: dict[str, str | None] = {}

        def is_logged() -> bool:
            for path in prediction_files(project.state):
                table = pq.read_table(path, columns=["id", "trace_id"])
                logged.update(zip(table["id"].to_pylist(), table["trace_id"].to_pylist(), strict=True))
            return {*ids, untraced} <= logged.keys()

        until(is_logged)
        assert [logged[name] for name in ids] == [f"{0x4711:032x}"] * 2
        assert logged[untraced] is None
        assert project.why(ids[0]).as_dict()["trace_id"] == f"{0x4711:032x}"
        (query,) = blocks(page("traces.md"), "sql")
        query = re.sub("FROM '[^']*' WHERE trace_id = '[^']*'", "FROM read_parquet(?) WHERE trace_id = ?", query)
        with duckdb.connect() as connection:
            rows = connection.execute(query, [prediction_files(project.state), f"{0x4711:032x}"]).fetchall()
        assert sorted(name for name, *_ in rows) == sorted(ids)
        assert project.replay().ok


def test_the_same_series_go_to_the_collector(server: PredictionServer, collector: Collector) -> None:
    post(server, traceparent=PARENT.header().decode())
    scraped = {family.name: family for family in text_string_to_metric_families(server.get("/metrics"))}
    until(lambda: {metric.name for metric in collector.metrics} >= {name for name, of in scraped.items() if of.samples})
    newest = {metric.name: metric for metric in collector.metrics}
    assert newest.keys() <= scraped.keys()
    histogram = newest["skewless_request_seconds"].histogram.data_points[0]
    bounds = [float(s.labels["le"]) for s in scraped["skewless_request_seconds"].samples if "le" in s.labels]
    assert list(histogram.explicit_bounds) == bounds[:-1]
    assert sum(histogram.bucket_counts) == histogram.count > 0
    requests = newest["skewless_requests"].sum
    assert requests.is_monotonic
    labels = {tuple(sorted(values(point.attributes).items())) for point in requests.data_points}
    assert labels >= {(("model", MODEL), ("outcome", "ok"), ("version", "000001"))}
    assert newest["skewless_breaker_state"].WhichOneof("data") == "gauge"


def test_only_predictions_are_traced(server: PredictionServer, collector: Collector) -> None:
    for path in ("/health/ready", "/models", "/metrics", "/nowhere"):
        assert "traceresponse" not in server.ask("GET", path)[1]
    assert {root.name for root in collector.roots()} <= {"POST /predict", "POST /v2/models/{model}/infer"}
    assert set(collector.paths) <= {"/v1/traces", "/v1/metrics"}


def test_the_end_of_a_server_sends_what_waits(repo: Path, collector: Collector) -> None:
    slow = {"OTEL_TRACES_SAMPLER": "always_on", "OTEL_BSP_SCHEDULE_DELAY": "600000"}
    with serving_to(repo, collector, **slow) as server:
        _, headers, _ = post(server)
        server.stop()
        traced(collector, headers)


def test_a_collector_that_does_not_answer_delays_no_reply_and_no_end(repo: Path) -> None:
    with collecting() as silent:
        silent.open.clear()
        small = {"OTEL_BSP_MAX_QUEUE_SIZE": "10", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "7"}
        with serving_to(repo, silent, OTEL_TRACES_SAMPLER="always_on", **small) as server:
            for _ in range(8):
                assert post(server)[0] == 200
            until(lambda: 'skewless_spans_dropped_total{reason="full"}' in server.get("/metrics"))
            start = time.monotonic()
            server.stop()
            assert time.monotonic() - start < 30


def test_the_client_passes_the_callers_span_on(server: PredictionServer, collector: Collector) -> None:
    span_context = SpanContext(0x77 << 64, 0x99, is_remote=False, trace_flags=TraceFlags(1))
    with Client(server.url) as client:
        token = context.attach(set_span_in_context(NonRecordingSpan(span_context)))
        try:
            client.predict(ask(1), model=MODEL)
        finally:
            context.detach(token)
    parent_id = (0x99).to_bytes(8, "big")
    until(lambda: [root for root in collector.roots() if root.parent_span_id == parent_id])
    (root,) = (root for root in collector.roots() if root.parent_span_id == parent_id)
    assert root.trace_id == (0x77 << 64).to_bytes(16, "big")
