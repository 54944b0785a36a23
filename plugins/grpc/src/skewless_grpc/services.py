"""The methods of the gRPC port: the Open Inference Protocol, health and reflection.

All methods but ``ModelInfer`` are requests to the HTTP application, in this process: so scopes, errors and replies are
the same, and exist once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
from google.protobuf.json_format import ParseDict
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from starlette.types import ASGIApp, Message

from skewless.contract.errors import RequestError, SkewlessError
from skewless.serving.access.certificate import PeerCertificate
from skewless.serving.access.gate import Headers
from skewless.serving.http.fair_queue import FairQueue
from skewless.serving.http.hot_routes import JSON, Admit, admit_anyone
from skewless.serving.metrics.telemetry import BeginTrace
from skewless.serving.models.loaded_models import MODEL_FIELD
from skewless_grpc.calls import GrpcCall, GrpcMethod
from skewless_grpc.infer_route import GrpcInferRoute, parse_message, read_parameters
from skewless_grpc.messages import POOL, SERVICE, method_messages

HEALTH = "grpc.health.v1.Health"
# Clients try the second name first; its messages have the same fields and numbers.
_REFLECTIONS = ("grpc.reflection.v1alpha.ServerReflection", "grpc.reflection.v1.ServerReflection")
_HEALTH = health_pb2.HealthCheckResponse
_OK = 200
_UNREADY = frozenset({404, 503})


@dataclass(frozen=True, kw_only=True)
class HttpTwin:
    """The HTTP request that answers a method.

    Args:
        path: returns the path for a message.
        body: returns the body for a message; None: GET, without a body.
        reply: returns the fields of the reply from the JSON of the reply over HTTP, and the message.
        unready: whether the reply to 404 and 503 is ``ready: false``.
    """

    path: Callable[[Any], str]
    body: Callable[[Any], Mapping[str, Any]] | None = None
    reply: Callable[[Any, Any], Mapping[str, Any]] = lambda body, _: body
    unready: bool = False


def _model_path(message: Any, end: str = "") -> str:  # noqa: ANN401 - protobuf has no types
    version = f"/versions/{_segment(message.version)}" if message.version else ""
    return f"/v2/models/{_segment(message.name)}{version}{end}"


def _repository_path(message: Any, end: str) -> str:  # noqa: ANN401 - as above
    return f"/v2/repository/models/{_segment(_repository_model(message))}/{end}"


def _repository_model(message: Any) -> str:  # noqa: ANN401 - as above
    # KServe's clients send the model's name as field 1, which is Triton's repository.
    name: str = message.model_name or message.repository_name
    return name


def _segment(name: str) -> str:
    if not name or "/" in name:
        fix = "RepositoryIndex lists the models"
        raise RequestError(MODEL_FIELD, "is not a served model", value=name, fix=fix)
    return name


_TWINS: Mapping[str, HttpTwin] = {
    "ServerLive": HttpTwin(path=lambda _: "/v2/health/live"),
    "ServerReady": HttpTwin(path=lambda _: "/v2/health/ready", unready=True),
    "ServerMetadata": HttpTwin(path=lambda _: "/v2"),
    "ModelReady": HttpTwin(path=lambda message: _model_path(message, "/ready"), unready=True),
    "ModelMetadata": HttpTwin(path=_model_path),
    "ModelConfig": HttpTwin(
        path=lambda message: _model_path(message, "/config"), reply=lambda body, _: {"config": body}
    ),
    "ModelStatistics": HttpTwin(
        path=lambda message: _model_path(message, "/stats") if message.name else "/v2/models/stats"
    ),
    "RepositoryIndex": HttpTwin(
        path=lambda _: "/v2/repository/index",
        body=lambda message: {"ready": message.ready},
        reply=lambda body, _: {"models": body},
    ),
    "RepositoryModelLoad": HttpTwin(
        path=lambda message: _repository_path(message, "load"),
        body=lambda message: {"parameters": read_parameters("request", message.parameters)},
        reply=lambda _, message: {"model_name": _repository_model(message), "isLoaded": True},
    ),
    "RepositoryModelUnload": HttpTwin(
        path=lambda message: _repository_path(message, "unload"),
        body=lambda message: {"parameters": read_parameters("request", message.parameters)},
        reply=lambda _, message: {"model_name": _repository_model(message), "isUnloaded": True},
    ),
}


@dataclass(kw_only=True, eq=False)
class InferenceService:
    """Methods of the Open Inference Protocol.

    Args:
        app: the HTTP application.
        route: handles ``ModelInfer``.
        queue: the queue of requests that wait for room, shared with HTTP.
        admit: as for predictions over HTTP.
        begin_trace: as ``HotRoutes``.
    """

    app: ASGIApp
    route: GrpcInferRoute
    queue: FairQueue
    admit: Admit
    begin_trace: BeginTrace | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def methods(self) -> dict[str, GrpcMethod]:
        """Return the methods by path."""
        messages = method_messages()
        methods = {
            f"/{SERVICE}/{name}": GrpcMethod(admit=admit_anyone, handle=partial(self._start, twin, *messages[name]))
            for name, twin in _TWINS.items()
        }
        return {**methods, f"/{SERVICE}/ModelInfer": GrpcMethod(admit=self.admit, handle=self._infer)}

    def _infer(self, call: GrpcCall, message: bytes) -> None:
        trace = None if self.begin_trace is None else self.begin_trace(call.headers)
        self.queue.submit(self.route.handle, call.exchange(message, trace), call)

    def _start(self, twin: HttpTwin, kind: Any, reply_kind: Any, call: GrpcCall, message: bytes) -> None:  # noqa: ANN401 - protobuf has no types
        work = self._run(twin, parse_message(kind, message), reply_kind, call)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, twin: HttpTwin, message: Any, reply_kind: Any, call: GrpcCall) -> None:  # noqa: ANN401 - as above
        try:
            # The default is for the bytes of a load request, which is rejected by the parameter's name.
            body = None if twin.body is None else orjson.dumps(twin.body(message), default=repr)
            status, text = await ask_app(self.app, twin.path(message), call.headers, body, call.certificate)
        except SkewlessError as error:
            call.fail(error)
            return
        if status == _OK:
            fields = twin.reply(orjson.loads(text), message)
        elif twin.unready and status in _UNREADY:
            fields = {"ready": False}
        else:
            call.exchange(b"").reply(status, text, JSON)
            return
        call.reply(ParseDict(fields, reply_kind(), ignore_unknown_fields=True).SerializeToString())


async def ask_app(
    app: ASGIApp, path: str, headers: Headers, body: bytes | None, certificate: PeerCertificate | None
) -> tuple[int, bytes]:
    """Return status and body of the application's reply.

    Args:
        path: decoded.
        headers, certificate: of the caller, which authenticate it.
        body: of a POST; None: GET.
    """
    status, parts = 500, [b""]

    async def receive() -> Message:
        return {"type": "http.request", "body": body or b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    scope = {
        "type": "http",
        "state": {} if certificate is None else {"certificate": certificate},
        "asgi": {"version": "3.0"},
        "http_version": "2",
        "method": "GET" if body is None else "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": list(headers),
        "client": None,
        "server": None,
    }
    await app(scope, receive, send)
    return status, b"".join(parts)


class HealthService:
    """``grpc.health.v1.Health``: the server's readiness.

    Args:
        ready: returns the reasons why the server is not ready; empty: it is ready.
    """

    def __init__(self, ready: Callable[[], dict[str, str]]) -> None:
        self._ready = ready
        self._watchers: dict[GrpcCall, int] = {}

    def methods(self) -> dict[str, GrpcMethod]:
        """Return the methods by path."""
        return {
            f"/{HEALTH}/Check": GrpcMethod(admit=admit_anyone, handle=self._check),
            f"/{HEALTH}/Watch": GrpcMethod(admit=admit_anyone, handle=self._watch, kind="watch"),
        }

    def notify_watchers(self) -> None:
        """Send the status to the clients that watch it, if it has changed."""
        status = self._status("")
        for call, last_status in list(self._watchers.items()):
            if call.disconnected:
                del self._watchers[call]
            elif status != last_status:
                self._watchers[call] = status
                call.send(_HEALTH(status=status).SerializeToString())

    def _status(self, service: str) -> int:
        if service not in {"", SERVICE}:
            return int(_HEALTH.SERVICE_UNKNOWN)
        return int(_HEALTH.NOT_SERVING if self._ready() else _HEALTH.SERVING)

    def _check(self, call: GrpcCall, message: bytes) -> None:
        service = parse_message(health_pb2.HealthCheckRequest, message).service
        status = self._status(service)
        if status == _HEALTH.SERVICE_UNKNOWN:
            error = RequestError("the service", "is unknown", value=service, fix=f"ask for {SERVICE!r}, or ''")
            call.fail(error, 404)
        else:
            call.reply(_HEALTH(status=status).SerializeToString())

    def _watch(self, call: GrpcCall, message: bytes) -> None:
        status = self._status(parse_message(health_pb2.HealthCheckRequest, message).service)
        # An unknown service stays unknown.
        if status != _HEALTH.SERVICE_UNKNOWN:
            self._watchers[call] = status
        call.send(_HEALTH(status=status).SerializeToString())


def reflection_methods(admit: Admit) -> dict[str, GrpcMethod]:
    """Return the methods of server reflection by path.

    Args:
        admit: as for the OpenAPI document over HTTP.
    """
    for module in (health_pb2, reflection_pb2):
        POOL.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    servicer = reflection.ReflectionServicer((SERVICE, HEALTH, *_REFLECTIONS[:1]), pool=POOL)

    def handle(call: GrpcCall, message: bytes) -> None:
        request = parse_message(reflection_pb2.ServerReflectionRequest, message)
        replies: Iterable[Any] = servicer.ServerReflectionInfo(iter((request,)), None)
        for reply in replies:
            call.send(reply.SerializeToString())

    method = GrpcMethod(admit=admit, handle=handle, kind="stream")
    return {f"/{name}/ServerReflectionInfo": method for name in _REFLECTIONS}
