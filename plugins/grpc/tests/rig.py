"""A gRPC port with methods of a test, on an event loop of its own, and a client of grpcio's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import uvloop

from skewless.serving.http.wire_limits import WireLimits
from skewless.serving.shutdown import Shutdown
from skewless_grpc.calls import GrpcMethod
from skewless_grpc.server import GrpcServer, channel_options
from tests.worlds.ports import free_ports

PATIENCE_S = 20


@dataclass
class GrpcReply:
    """What a client got: the name of the status, and the message or the details."""

    code: str
    text: str
    message: bytes = b""
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class GrpcPort:
    """A port, and what its server's event loop can be told."""

    address: str
    loop: asyncio.AbstractEventLoop
    shutdown: Shutdown
    stopped: threading.Event

    def run(self, work: Callable[[], object]) -> None:
        """Run something on the event loop."""
        self.loop.call_soon_threadsafe(work)

    def ask(
        self,
        path: str,
        message: bytes = b"",
        *,
        timeout: float | None = PATIENCE_S,
        metadata: Sequence[tuple[str, str]] = (),
        compression: grpc.Compression | None = None,
    ) -> GrpcReply:
        """Return the reply to one call, on a connection of its own."""
        return ask(self.address, path, message, timeout=timeout, metadata=metadata, compression=compression)

    @contextmanager
    def channel(self) -> Iterator[Any]:
        with grpc.insecure_channel(self.address, options=_OPTIONS) as channel:
            yield channel


_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each channel
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)


def ask(
    address: str,
    path: str,
    message: bytes,
    *,
    timeout: float | None = PATIENCE_S,
    metadata: Sequence[tuple[str, str]] = (),
    compression: grpc.Compression | None = None,
    credentials: grpc.ChannelCredentials | None = None,
) -> GrpcReply:
    """Return the reply to one call, on a connection of its own."""
    channel = (
        grpc.insecure_channel(address, options=_OPTIONS)
        if credentials is None
        else grpc.secure_channel(address, credentials, options=_OPTIONS)
    )
    with channel:
        return reply_of(channel.unary_unary(path), message, timeout=timeout, metadata=metadata, compression=compression)


def reply_of(method: Any, message: bytes, **options: Any) -> GrpcReply:  # noqa: ANN401 - of grpcio
    """Return the reply of a method of a channel."""
    try:
        reply, call = method.with_call(message, **options)
    except grpc.RpcError as error:
        reply, call = b"", error
    metadata = {name: str(value) for name, value in call.trailing_metadata() or ()}
    return GrpcReply(call.code().name, call.details() or "", reply, metadata=metadata)


@contextmanager
def serving(
    methods: Mapping[str, GrpcMethod],
    limits: WireLimits | None = None,
    on_check: Callable[[], None] = lambda: None,
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[GrpcPort]:
    """Serve methods; at the end the server must stop."""
    limits = limits or WireLimits(body_bytes=10_000)
    ports: list[GrpcPort] = []
    ready, stopped = threading.Event(), threading.Event()

    async def serve() -> None:
        shutdown, address = Shutdown(), f"127.0.0.1:{free_ports(1)[0]}"
        server = GrpcServer(methods, limits, channel_options(limits), on_check=on_check)
        server.start(address, credentials)
        ports.append(GrpcPort(address, asyncio.get_running_loop(), shutdown, stopped))
        ready.set()
        await server.run(shutdown, 0.0)
        stopped.set()

    thread = threading.Thread(target=lambda: uvloop.run(serve()))
    thread.start()
    assert ready.wait(PATIENCE_S)
    try:
        yield ports[0]
    finally:
        if not stopped.is_set():
            ports[0].run(ports[0].shutdown.force)
        thread.join(PATIENCE_S)
    assert not thread.is_alive()
