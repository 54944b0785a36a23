"""What the fast lane relies on inside uvicorn, which promises none of it: a new uvicorn is tried here first."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import uvicorn
from uvicorn.config import create_ssl_context
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import Server, ServerState

CALLED = {
    "connection_made": ["transport"],
    "connection_lost": ["exc"],
    "data_received": ["data"],
    "eof_received": [],
    "resume_writing": [],
    "on_message_begin": [],
    "on_header": ["name", "value"],
    "on_headers_complete": [],
    "on_body": ["body"],
    "on_message_complete": [],
    "on_response_complete": [],
    "_start_asgi_task": ["cycle", "app"],
}
READ = {
    "app",
    "cycle",
    "expect_100_continue",
    "flow",
    "headers",
    "loop",
    "parser",
    "pipeline",
    "scheme",
    "server_state",
}
OF_A_CYCLE = {
    "disconnected", "keep_alive", "message_event", "more_body", "response_complete", "response_started", "transport",
    "waiting_for_100_continue",
}  # fmt: skip
OF_A_SERVER = {"config", "force_exit", "lifespan", "server_state", "servers", "should_exit", "started"}
GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


class KeepingTransport(asyncio.Transport):
    """Keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: Any) -> None:  # noqa: ANN401 - as in asyncio
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Do nothing."""

    def pause_reading(self) -> None:
        """Do nothing."""

    def resume_reading(self) -> None:
        """Do nothing."""


async def app(_scope: Any, _receive: Any, send: Any) -> None:  # noqa: ANN401 - of ASGI
    """Answer without a body."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def parameters(function: object) -> list[str]:
    """Return the names of a method's parameters, without self."""
    assert callable(function)
    return list(inspect.signature(function).parameters)[1:]


def test_what_we_override_or_call_is_there() -> None:
    assert {name: parameters(getattr(HttpToolsProtocol, name)) for name in CALLED} == CALLED
    assert parameters(HttpToolsProtocol.__init__)[:3] == ["config", "server_state", "app_state"]
    assert {"pause_reading", "resume_reading", "pause_writing", "resume_writing"} <= vars(FlowControl).keys()
    assert STATUS_LINE[200] == b"HTTP/1.1 200 OK\r\n"
    assert {"capture_signals", "shutdown", "serve"} <= vars(Server).keys()
    assert {"certfile", "keyfile"} <= set(inspect.signature(create_ssl_context).parameters)


async def test_a_request_goes_through_the_attributes_that_we_read() -> None:
    transport = KeepingTransport()
    config = uvicorn.Config(app, http="httptools", log_config=None, ws="none")
    config.load()
    state = ServerState()
    protocol = HttpToolsProtocol(config=config, server_state=state, app_state={})
    protocol.connection_made(transport)
    assert protocol in state.connections
    protocol.data_received(GET)
    cycle = protocol.cycle
    await asyncio.gather(*state.tasks)
    protocol.connection_lost(None)
    assert transport.written.startswith(STATUS_LINE[204])
    assert vars(protocol).keys() >= READ
    assert vars(cycle).keys() >= OF_A_CYCLE
    assert cycle.response_complete
    assert (state.total_requests, list(protocol.pipeline), state.default_headers) == (1, [], [])
    assert {"read_paused", "write_paused"} <= vars(protocol.flow).keys()


def test_a_server_has_what_ours_reads() -> None:
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    assert {name for name in OF_A_SERVER if not hasattr(server, name)} <= {"lifespan", "servers"}  # from its start on
    assert "lifespan" in inspect.getsource(Server)
    assert hasattr(server.config, "is_ssl")
