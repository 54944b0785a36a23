"""Uvicorn under our own shutdown, after which the process still has a log to write."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import uvicorn

from skewless.serving.http.hot_protocol import reap
from skewless.serving.http.listening import refuse_new
from skewless.serving.http.tls import CertificateRenewal
from skewless.serving.shutdown import Shutdown

_LOOK_SECONDS = 1.0
_CLOSE = (b"connection", b"close")
_ACCEPTED = 8  # connections in one turn of the loop
_SETTLE_SECONDS = 0.1
_HANDSHAKE_SECONDS = 0.002  # a connection that has just begun gets into the queue


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A bound socket and how requests that come through it are answered."""

    link: socket.socket
    options: uvicorn.Config


async def run_http(
    entrances: Sequence[Listener], shutdown: Shutdown, drain_seconds: float, on_ready: Callable[[], None]
) -> None:
    """Answer requests until the shutdown; those under way are answered, unless it is to be at once.

    Args:
        drain_seconds: from the shutdown's begin to the end of listening. Replies meanwhile ask their clients to
            connect anew.
        on_ready: told once all entrances listen.
    """
    renewals = [CertificateRenewal(entrance.options) for entrance in entrances if entrance.options.is_ssl]
    servers = [_Server(entrance.options) for entrance in entrances]
    running = [
        asyncio.create_task(server.serve(sockets=_several(entrance.link)))
        for server, entrance in zip(servers, entrances, strict=True)
    ]
    reaper = asyncio.create_task(_look_after(servers, renewals))
    try:
        while not all(server.started for server in servers):  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        on_ready()
        await shutdown.begun()
        for server in servers:
            server.part()
        await shutdown.drained(drain_seconds)
    finally:
        hurry = asyncio.create_task(_hurry(servers, shutdown))
        for server in servers:
            server.should_exit = True
        await asyncio.wait(running)
        hurry.cancel()
        reaper.cancel()


async def _look_after(servers: Sequence[uvicorn.Server], renewals: Sequence[CertificateRenewal]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        for server in servers:
            reap(server.server_state.connections, loop.time())
        for renewal in renewals:
            renewal.look()


async def _hurry(servers: Sequence[uvicorn.Server], shutdown: Shutdown) -> None:
    await shutdown.at_once()
    for server in servers:
        server.force_exit = True


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the shutdown: uvicorn raises them again, which would end the process too soon."""
        yield

    def part(self) -> None:
        """Ask clients to close their connections once they have their replies."""
        self.config.encoded_headers.append(_CLOSE)
        self.server_state.default_headers = [*self.server_state.default_headers, _CLOSE]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End listening; what clients had sent by then is read and answered before connections are closed."""
        copies = [link.dup() for link in sockets or []]
        for link in copies[:1]:
            refuse_new(link)
            await asyncio.sleep(_HANDSHAKE_SECONDS)
        for server in self.servers:
            server.close()
        waiting = [connection for link in copies for connection in _waiting(link)]
        for connection in waiting:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)
        await asyncio.sleep(_SETTLE_SECONDS)
        await super().shutdown(sockets)
        if self.force_exit:  # then uvicorn leaves the lifespan to be cancelled
            await self.lifespan.shutdown()

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _several(link: socket.socket) -> list[socket.socket]:
    """Return a socket with duplicates: uvloop takes one connection of each a turn, and turns are long under load."""
    return [link, *(link.dup() for _ in range(_ACCEPTED - 1))]


def _waiting(link: socket.socket) -> list[socket.socket]:
    """Take the connections that nobody has taken yet, which the kernel would otherwise reset; then end listening."""
    found = []
    with link, contextlib.suppress(OSError):
        link.settimeout(0)
        while True:
            found.append(link.accept()[0])
    return found
