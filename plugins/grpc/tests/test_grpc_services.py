"""Health and reflection, and the methods that the HTTP application answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from starlette.types import Receive, Scope, Send

from plugins.grpc.tests.rig import GrpcPort, GrpcReply, serving
from skewless.contract.errors import AccessError
from skewless.contract.trace_context import TraceContext
from skewless.infra.platform.otel.trace import Trace
from skewless.serving.access.caller import Caller
from skewless.serving.access.certificate import PeerCertificate
from skewless.serving.access.gate import Headers
from skewless.serving.http.fair_queue import FairQueue
from skewless.serving.http.hot_routes import admit_anyone
from skewless.serving.http.wire_limits import BodyBudget
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.prediction.admission import Admission, busy_error
from skewless_grpc.messages import SERVICE, message_class
from skewless_grpc.services import HealthService, InferenceService, reflection_methods

HEALTH = health_pb2.HealthCheckResponse
REASONS: dict[str, str] = {}
ASKED: list[tuple[str, str, bytes, bytes]] = []
REPLIES: dict[str, tuple[int, object]] = {
    "/v2/health/ready": (503, {"error": "model fraud: is not loaded"}),
    "/v2/models/fraud/versions/7/ready": (200, {"name": "fraud", "ready": True}),
    "/v2/models/stats": (200, {"model_stats": [{"name": "fraud", "inference_count": 3, "unknown": 1}]}),
    "/v2/repository/index": (200, [{"name": "fraud", "version": "000001", "state": "READY", "reason": ""}]),
    "/v2/repository/models/fraud/load": (403, {"error": "API key 'k': does not have the scope"}),
    "/v2/repository/models/fraud/unload": (200, {}),
}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer from the table, and remember the request."""
    body = (await receive())["body"]
    ASKED.append((scope["method"], scope["path"], body, dict(scope["headers"]).get(b"x-api-key", b"")))
    status, reply = REPLIES.get(scope["path"], (404, {"error": "is not here"}))
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(reply).encode()})


def _refuse(_headers: Headers, _certificate: PeerCertificate | None) -> Caller:
    raise AccessError("k", "is", fix="f")


@pytest.fixture(scope="module")
def grpc_port() -> Iterator[GrpcPort]:
    health = HealthService(lambda: dict(REASONS))
    unused: Any = None
    service = InferenceService(app=app, route=unused, queue=unused, admit=_refuse)
    methods = {**service.methods(), **health.methods(), **reflection_methods(admit_anyone)}
    with serving(methods, on_check=health.notify_watchers) as grpc_port:
        yield grpc_port


def ask(grpc_port: GrpcPort, method: str, **fields: Any) -> GrpcReply:  # noqa: ANN401 - of a message
    message = message_class(f"{method}Request")(**fields)
    metadata = [("x-api-key", "k")]
    return grpc_port.ask(f"/{SERVICE}/{method}", message.SerializeToString(), metadata=metadata)


def read(reply: GrpcReply, method: str) -> Any:  # noqa: ANN401 - a message
    assert reply.code == "OK", reply
    return message_class(f"{method}Response").FromString(reply.message)


def test_methods_are_requests_to_the_application_with_the_callers_key(grpc_port: GrpcPort) -> None:
    ASKED.clear()
    assert not read(ask(grpc_port, "ServerReady"), "ServerReady").ready
    assert read(ask(grpc_port, "ModelReady", name="fraud", version="7"), "ModelReady").ready
    assert not read(ask(grpc_port, "ModelReady", name="other"), "ModelReady").ready
    assert read(ask(grpc_port, "ModelStatistics"), "ModelStatistics").model_stats[0].inference_count == 3
    assert [m.name for m in read(ask(grpc_port, "RepositoryIndex", ready=True), "RepositoryIndex").models] == ["fraud"]
    assert ASKED[-1] == ("POST", "/v2/repository/index", b'{"ready":true}', b"k")
    assert [path for _, path, _, _ in ASKED[:2]] == ["/v2/health/ready", "/v2/models/fraud/versions/7/ready"]


def test_errors_of_the_application_are_errors_of_the_call(grpc_port: GrpcPort) -> None:
    reply = ask(grpc_port, "RepositoryModelLoad", model_name="fraud")
    assert (reply.code, reply.text) == ("PERMISSION_DENIED", "API key 'k': does not have the scope")
    assert ask(grpc_port, "ModelMetadata", name="other").code == "NOT_FOUND"
    assert ask(grpc_port, "ModelInfer").code == "UNAUTHENTICATED"
    broken = grpc_port.ask(f"/{SERVICE}/ModelMetadata", b"\xff")
    assert (broken.code, broken.text.partition(":")[0]) == ("INVALID_ARGUMENT", "the message")


@pytest.mark.parametrize("name", ["", "a/b", "../repository"])
def test_a_name_is_one_part_of_the_path(name: str, grpc_port: GrpcPort) -> None:
    ASKED.clear()
    assert ask(grpc_port, "ModelConfig", name=name).code == "NOT_FOUND"
    assert ask(grpc_port, "RepositoryModelUnload", model_name=name).code == "NOT_FOUND"
    assert ASKED == []


def test_the_repositorys_field_names_the_model_as_kserve_sends_it(grpc_port: GrpcPort) -> None:
    for fields in ({"repository_name": "fraud"}, {"repository_name": "r", "model_name": "fraud"}):
        reply = read(ask(grpc_port, "RepositoryModelUnload", **fields), "RepositoryModelUnload")
        assert (reply.model_name, reply.isUnloaded) == ("fraud", True)


def test_health_follows_readiness_and_watchers_are_told(grpc_port: GrpcPort) -> None:
    with grpc_port.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            assert stub.Check(health_pb2.HealthCheckRequest(service=service)).status == HEALTH.SERVING
        with pytest.raises(grpc.RpcError) as failure:
            stub.Check(health_pb2.HealthCheckRequest(service="other"))
        assert "NOT_FOUND" in str(failure.value)
        unknown = stub.Watch(health_pb2.HealthCheckRequest(service="other"))
        assert next(unknown).status == HEALTH.SERVICE_UNKNOWN
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == HEALTH.SERVING
        REASONS["server"] = "is shutting down"
        assert next(watch).status == HEALTH.NOT_SERVING
        assert stub.Check(health_pb2.HealthCheckRequest()).status == HEALTH.NOT_SERVING
        REASONS.clear()
        assert next(watch).status == HEALTH.SERVING


def test_reflection_lists_the_services_and_gives_their_messages(grpc_port: GrpcPort) -> None:
    with grpc_port.channel() as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        names = {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
        assert set(database.get_services()) == names
        pool = DescriptorPool(database)
        methods = {method.name for method in pool.FindServiceByName(SERVICE).methods}
        assert {"ModelInfer", "ModelStatistics", "RepositoryIndex"} <= methods
        # The name that newer clients try first; the messages are equal.
        method = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        request = b"\x3a\x00"  # list_services: ""
        assert [SERVICE.encode() in reply for reply in method(iter([request, request]))] == [True, True]


def test_a_server_without_room_says_so_in_the_words_of_http() -> None:
    metrics = Metrics()
    admission = Admission(requests=0, rows=10, metrics=metrics)
    queue = FairQueue(admission, BodyBudget(1_000), wait_s=0.0, metrics=metrics)
    unused: Any = SimpleNamespace(handle=None)
    service = InferenceService(app=app, route=unused, queue=queue, admit=admit_anyone)
    with serving(service.methods()) as grpc_port:
        reply = ask(grpc_port, "ModelInfer", model_name="fraud")
    assert (reply.code, reply.text, reply.metadata["retry-after"]) == ("UNAVAILABLE", busy_error().sentence(), "1")
    assert metrics.refused("overload").value == 1


def test_a_call_has_the_trace_and_the_id_of_its_caller() -> None:
    metrics, finished = Metrics(), list[Trace]()
    queue = FairQueue(Admission(requests=5, rows=10, metrics=metrics), BodyBudget(1_000), wait_s=1.0, metrics=metrics)
    route: Any = SimpleNamespace(handle=lambda exchange: exchange.reply(200, b""))
    context = TraceContext(0xABC, 0xDEF, is_sampled=True)
    service = InferenceService(
        app=app,
        route=route,
        queue=queue,
        admit=admit_anyone,
        begin_trace=lambda headers: (
            Trace(context, 0, finished.append) if (b"x-request-id", b"c-17") in headers else None
        ),
    )
    with serving(service.methods()) as grpc_port:
        message = message_class("ModelInferRequest")(model_name="fraud").SerializeToString()
        traced = grpc_port.ask(f"/{SERVICE}/ModelInfer", message, metadata=[("x-request-id", "c-17")])
        plain = grpc_port.ask(f"/{SERVICE}/ModelInfer", message)
    assert (traced.code, plain.code) == ("OK", "OK"), traced
    assert (traced.metadata["x-request-id"], traced.metadata["traceresponse"]) == ("c-17", context.header().decode())
    assert (len(finished), {"x-request-id", "traceresponse"} & plain.metadata.keys()) == (1, set())
