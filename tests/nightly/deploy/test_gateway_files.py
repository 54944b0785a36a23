"""Each gateway accepts its file, and the limits in it are those of the server and of the Python client."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from skewless.client.limits import Limits
from skewless.contract.settings import Settings
from skewless.serving.http.wire_limits import WireLimits
from tests.nightly.deploy.gateways import FILES, FOLDER, KINDS, check_command, make_certificate, write_config

_SETTINGS, _CALL = Settings(), Limits()
_WIRE = WireLimits(body_bytes=_SETTINGS.body_bytes, header_bytes=_SETTINGS.header_bytes)
_BODY, _EVENTS, _HEADERS = _SETTINGS.body_bytes, 32 * _SETTINGS.event_bytes, _SETTINGS.header_bytes
_REQUEST, _IDLE = f"{_WIRE.request_seconds:.0f}s", f"{_WIRE.keep_alive_seconds:.0f}s"
_ATTEMPT, _TOTAL = f"{_CALL.attempt_s:.0f}s", f"{_CALL.total_s:.0f}s"
_KIB, _MIB = 1_024, 1_048_576
LIMITS = {
    "nginx": [
        f"\n    client_max_body_size {_BODY // _MIB}m;",
        f"\n      client_max_body_size {_EVENTS // _MIB}m;",
        f"large_client_header_buffers 1 {_HEADERS // _KIB}k;",
        f"client_header_timeout {_REQUEST};",
        f"client_body_timeout {_REQUEST};",
        f"send_timeout {_REQUEST};",
        f"\n    keepalive_timeout {_IDLE};",
        f"proxy_read_timeout {_ATTEMPT};",
        f"proxy_next_upstream_timeout {_TOTAL};",
    ],
    "haproxy": [
        f"if !sends {{ req.body_size gt {_BODY} }}",
        f"if sends {{ req.body_size gt {_EVENTS} }}",
        f"tune.bufsize {_HEADERS + 2_048}\n  tune.maxrewrite 2048\n",
        f"timeout http-request {_REQUEST}\n",
        f"timeout client {_REQUEST}\n",
        f"timeout http-keep-alive {_IDLE}\n",
        f"timeout server {_ATTEMPT}\n",
    ],
    "envoy": [
        f"\n              max_request_bytes: {_BODY}\n",
        f"buffer: {{max_request_bytes: {_EVENTS}}}",
        f"\n    per_connection_buffer_limit_bytes: {_BODY}\n    filter_chains",
        f"max_request_headers_kb: {_HEADERS // _KIB}\n",
        f"request_headers_timeout: {_REQUEST}\n",
        f"request_timeout: {_REQUEST}\n",
        f"stream_idle_timeout: {_REQUEST}\n",
        f"\n          common_http_protocol_options: {{idle_timeout: {_IDLE}}}",
        f"per_try_timeout: {_ATTEMPT}\n",
        f"\n                  timeout: {_TOTAL}\n",
    ],
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_gateway_accepts_its_file(kind: str, tmp_path: Path) -> None:
    make_certificate(tmp_path)
    command = check_command(kind, write_config(kind, tmp_path, 1, (2, 3, 4)))
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "warn" not in checked.stderr.lower(), checked.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_limits_are_those_of_the_server(kind: str) -> None:
    text = (FOLDER / FILES[kind]).read_text(encoding="utf-8")
    assert [limit for limit in LIMITS[kind] if limit not in text] == []


@pytest.mark.parametrize(("kind", "idle"), [("nginx", "keepalive_timeout 60s"), ("envoy", "{idle_timeout: 60s}")])
def test_a_gateway_closes_idle_connections_before_the_server(kind: str, idle: str) -> None:
    # HAProxy has no such number: it never reuses a connection that the server has closed.
    assert idle in (FOLDER / FILES[kind]).read_text(encoding="utf-8")
    assert _WIRE.keep_alive_seconds > 60
