"""An OpenTelemetry collector: it keeps the messages of OTLP/HTTP, and may be slow or refuse them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.worlds.waiting import PATIENCE_S


@dataclass
class Collector:
    """What a collector has received, and how it answers."""

    port: int = 0
    statuses: list[int] = field(default_factory=list)  # of the next replies; then 200
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    resources: list[dict[str, str]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.open.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def roots(self) -> list[Span]:
        """Return the spans of requests, which a server made."""
        return [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]

    def runs(self) -> set[tuple[str, str]]:
        """Return id and name of the spans of runs, which a scheduler made."""
        found = ((values(span.attributes).get("skewless.run"), span.name) for span in self.spans)
        return {(run, name) for run, name in found if run is not None}

    def children(self, root: Span) -> list[Span]:
        """Return the stages of a request, in their order."""
        found = [span for span in self.spans if span.parent_span_id == root.span_id]
        return sorted(found, key=lambda span: (span.start_time_unix_nano, span.end_time_unix_nano))

    def receive(self, path: str, headers: dict[str, str], body: bytes) -> int:
        assert self.open.wait(PATIENCE_S)
        self.paths.append(path)
        self.headers.append(headers)
        if self.statuses:
            return self.statuses.pop(0)
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.bodies.append(body)
        if path == "/v1/traces":
            for of in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resources.append(values(of.resource.attributes))
                self.spans += [span for scope in of.scope_spans for span in scope.spans]
        elif path == "/v1/metrics":
            for each in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.resources.append(values(each.resource.attributes))
                self.metrics += [metric for scope in each.scope_metrics for metric in scope.metrics]
        else:
            return 404
        return 200


def values(attributes: Sequence[Any]) -> dict[str, Any]:
    """Return attributes as a dictionary."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector."""
    collector = Collector()

    class OtlpHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(collector.receive(self.path, headers, body))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), OtlpHandler)
    server.daemon_threads = True
    collector.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.open.set()
        server.shutdown()
        server.server_close()
        thread.join()
