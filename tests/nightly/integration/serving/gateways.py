"""nginx and HAProxy before a server of ours: only what begins with ``/hot`` may pass."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from skewless.serving.http.hot_protocol import make_protocol
from skewless.serving.http.hot_routes import Exchange, HotRoutes
from skewless.serving.http.wire_limits import WireLimits
from tests.worlds.waiting import PATIENCE_S, until

HOST = "127.0.0.1"
_NGINX = """
{user}
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log warn;
events {{ worker_connections 256; }}
http {{
  access_log off; default_type text/plain;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_body_timeout 1s; client_header_timeout 1s; keepalive_timeout 1s; lingering_close off;
  underscores_in_headers on; ignore_invalid_headers off;
  upstream ours {{ server {host}:{server}; keepalive 4; }}
  server {{
    listen {host}:{port};
    location / {{ return 403 "gateway"; }}
    location /hot {{
      proxy_pass http://ours; proxy_http_version 1.1; proxy_read_timeout 5s; proxy_request_buffering {buffering};
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;
      proxy_set_header Expect $http_expect; proxy_pass_request_headers on;
    }}
  }}
}}
"""
_HAPROXY = """
defaults
  mode http
  timeout client 1s
  timeout connect 5s
  timeout server 5s
  timeout http-request 1s
  timeout http-keep-alive 1s
  http-reuse always
frontend way
  bind {host}:{port}
  http-request return status 403 content-type text/plain string gateway unless {{ path_beg /hot }}
  default_backend ours
backend ours
  server ours {host}:{server} maxconn 4
"""


@dataclass
class OriginServer:
    """A server of ours that remembers the targets of all requests, and replies with their ``x-id`` and length."""

    port: int = 0
    targets: list[str] = field(default_factory=list)

    def hot(self, exchange: Exchange) -> None:
        query = exchange.query.decode("latin-1")
        self.targets.append(exchange.path + (f"?{query}" if query else ""))
        exchange.reply(200, _reply(exchange.headers, len(exchange.body)))

    async def application(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        self.targets.append(scope["path"])
        body = _reply(scope["headers"], size)
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _reply(headers: Any, size: int) -> bytes:  # noqa: ANN401 - pairs
    return b"%b %d" % (dict(headers).get(b"x-id", b"none"), size)


@contextmanager
def origin() -> Iterator[OriginServer]:
    """Serve for a while."""
    ours = OriginServer()
    lane = make_protocol(HotRoutes({"/hot": ours.hot, "/predict": ours.hot}), WireLimits(body_bytes=100_000))
    config = uvicorn.Config(ours.application, http=lane, log_config=None, lifespan="off", ws="none", interface="asgi3")
    server = uvicorn.Server(config)
    with socket.create_server((HOST, 0)) as listener:
        ours.port = listener.getsockname()[1]
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        until(lambda: server.started)
        yield ours
        server.should_exit = True
        thread.join(PATIENCE_S)
    assert not thread.is_alive()


@contextmanager
def gateway(kind: str, folder: Path, server: int) -> Iterator[int]:
    """Run a gateway before a server; yield its port.

    Args:
        kind: ``nginx``, ``nginx unbuffered`` or ``haproxy``.
    """
    name = kind.split(maxsplit=1)[0]
    program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip(f"no {name} on this machine (apt-get install nginx-light haproxy)")
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    text = (_HAPROXY if name == "haproxy" else _NGINX).format(
        user="user root root;" if os.geteuid() == 0 else "",
        folder=folder,
        host=HOST,
        port=port,
        server=server,
        buffering="off" if "unbuffered" in kind else "on",
    )
    file = folder / "gateway.conf"
    file.write_text(text)
    command = [program, "-db", "-f", str(file)] if name == "haproxy" else [program, "-p", str(folder), "-c", str(file)]
    with (folder / "gateway.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until(lambda: _listens(port, process, folder))
            yield port
        finally:
            process.terminate()


def _listens(port: int, process: subprocess.Popen[bytes], folder: Path) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        assert process.poll() is None, (folder / "gateway.log").read_text()
        return False
    return True
