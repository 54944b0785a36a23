"""Uvicorn with our own shutdown: when it stops, the process still has to write its log."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn

from skewless.serving.http.hot_protocol import HotProtocol
from skewless.serving.http.sockets import reject_new_connections
from skewless.serving.http.tls import CertificateRenewal
from skewless.serving.shutdown import Shutdown

_CHECK_SECONDS = 1.0
_CLOSE = (b"connection", b"close")
_ACCEPTS_PER_TURN = 8  # connections accepted in one turn of the loop
_SETTLE_SECONDS = 0.1  # time for requests that are already in socket buffers
_HANDSHAKE_SECONDS = 0.002  # time for connections in their handshake to reach the queue


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A bound socket, and the server configuration for its requests."""

    sock: socket.socket
    options: uvicorn.Config


async def run_http(
    listeners: Sequence[Listener], shutdown: Shutdown, drain_seconds: float, on_ready: Callable[[], None]
) -> None:
    """Serve requests until the shutdown; requests in progress are completed, unless the shutdown is forced.

    Args:
        drain_seconds: time between the start of the shutdown and the end of listening. Replies in this time ask clients
            to reconnect.
        on_ready: called once all sockets listen.
    """
    # Before the servers: this loads their TLS contexts, and sets the callback that later selects renewed ones.
    renewals = [CertificateRenewal(listener.options) for listener in listeners if listener.options.is_ssl]
    servers = [_Server(listener.options) for listener in listeners]
    tasks = [
        asyncio.create_task(server.serve(sockets=_duplicate_socket(listener.sock)))
        for server, listener in zip(servers, listeners, strict=True)
    ]
    maintenance = asyncio.create_task(_maintain_connections(servers, renewals))
    try:
        while not all(server.started for server in servers):  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        on_ready()
        await shutdown.begun.wait()
        for server in servers:
            server.announce_close()
        await shutdown.wait_drained(drain_seconds)
    finally:
        # Without `force_exit`, uvicorn waits for requests that hang.
        force_exit = asyncio.create_task(_force_exit(servers, shutdown))
        for server in servers:
            server.should_exit = True
        await asyncio.wait(tasks)
        force_exit.cancel()
        maintenance.cancel()


async def _maintain_connections(servers: Sequence[uvicorn.Server], renewals: Sequence[CertificateRenewal]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_CHECK_SECONDS)
        for server in servers:
            close_timed_out(server.server_state.connections, loop.time())
        for renewal in renewals:
            renewal.reload_if_changed()


async def _force_exit(servers: Sequence[uvicorn.Server], shutdown: Shutdown) -> None:
    await shutdown.forced.wait()
    for server in servers:
        server.force_exit = True


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the shutdown: uvicorn would raise them again, which ends the process too soon."""
        yield

    def announce_close(self) -> None:
        """Ask clients to close their connections after their replies."""
        self.config.encoded_headers.append(_CLOSE)
        self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening; serve what clients have sent by then, and close the connections."""
        # Duplicates keep the queue of pending connections open: the kernel resets them with the last descriptor.
        duplicates = [sock.dup() for sock in sockets or []]
        # All duplicates are one socket for the kernel, so one filter is enough.
        for sock in duplicates[:1]:
            reject_new_connections(sock)
            await asyncio.sleep(_HANDSHAKE_SECONDS)
        for server in self.servers:
            server.close()
        pending = [connection for sock in duplicates for connection in _accept_pending(sock)]
        for connection in pending:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)
        await asyncio.sleep(_SETTLE_SECONDS)
        # uvicorn closes all connections without a complete head; a client may wait for a core before it sends one.
        while not self.force_exit and any(map(_is_arriving, self.server_state.connections)):  # noqa: ASYNC110 - no event
            await asyncio.sleep(_SETTLE_SECONDS)
        await super().shutdown(sockets)
        if self.force_exit:  # then uvicorn does not shut the lifespan down
            await self.lifespan.shutdown()

    def _protocol(self) -> asyncio.Protocol:
        protocol_class: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = protocol_class(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _duplicate_socket(sock: socket.socket) -> list[socket.socket]:
    """Return a socket with duplicates: uvloop accepts one connection per socket and turn, which is slow under load."""
    return [sock, *(sock.dup() for _ in range(_ACCEPTS_PER_TURN - 1))]


def _accept_pending(sock: socket.socket) -> list[socket.socket]:
    """Accept the pending connections, which the kernel would otherwise reset, and close the socket."""
    connections = []
    with sock, contextlib.suppress(OSError):
        sock.settimeout(0)
        while True:
            connections.append(sock.accept()[0])
    return connections


def _is_arriving(connection: Any) -> bool:  # noqa: ANN401 - of any protocol
    return isinstance(connection, HotProtocol) and connection.is_arriving(connection.loop.time())


def close_timed_out(connections: set[Any], now: float) -> int:
    """Close connections that have timed out; return their number."""
    expired = [
        connection
        for connection in connections
        if isinstance(connection, HotProtocol) and connection.has_timed_out(now)
    ]
    for connection in expired:
        # `close` would first wait until the client has read everything in the write buffer.
        connection.transport.abort()
    return len(expired)
