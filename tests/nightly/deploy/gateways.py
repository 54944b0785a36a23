"""The gateways of ``infra/deploy/gateways``, run as they are but for addresses, ports and paths."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.servers.prediction import ROOT
from tests.worlds.ports import free_ports
from tests.worlds.waiting import PATIENCE_S, until

HOST = "127.0.0.1"
KINDS = ("nginx", "haproxy", "envoy")
CHECKING = ("haproxy", "envoy")  # with active health checks
FOLDER = ROOT / "infra" / "deploy" / "gateways"
FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "envoy": "envoy.yaml"}
_PACKAGES = {"nginx": "apt-get install nginx-light", "haproxy": "apt-get install haproxy", "envoy": "make setup-deploy"}
_PLACES = f"{os.environ['PATH']}:/usr/sbin:{ROOT / '.venv-deploy' / 'bin'}"
# For each gateway: the text that listens, and a server's address, by its number.
_LISTENS = {
    "nginx": ("listen 443 ssl", "listen {host}:{port} ssl"),
    "haproxy": ("bind :443", "bind {host}:{port}"),
    "envoy": ("address: 0.0.0.0, port_value: 443", "address: {host}, port_value: {port}"),
}
_SERVERS = {
    **dict.fromkeys(("nginx", "haproxy"), ("10.0.0.1{n}:8080", "{host}:{port}")),
    "envoy": ("address: 10.0.0.1{n}, port_value: 8080", "address: {host}, port_value: {port}"),
}
_FILES = "/etc/skewless/"
_ADMIN = {"nginx": "", "haproxy": "/run/haproxy/admin.sock", "envoy": "port_value: 9901"}


@dataclass(frozen=True, kw_only=True)
class RunningGateway:
    """A running gateway.

    Args:
        certificate: the authority that its callers trust.
    """

    kind: str
    port: int
    certificate: Path

    @property
    def tls(self) -> ssl.SSLContext:
        """What a caller trusts."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of a reply, on a connection of its own."""
        connection = HTTPSConnection(HOST, self.port, timeout=PATIENCE_S, context=self.tls)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
        finally:
            connection.close()


def find_program(kind: str) -> str:
    """Return the path of a gateway's program; the test is skipped if there is none."""
    found = shutil.which(kind, path=_PLACES)
    if found is None:
        pytest.skip(f"no {kind} on this machine (`{_PACKAGES[kind]}`)")
    return found


def make_certificate(folder: Path) -> Path:
    """Write ``gateway.crt``, ``gateway.key`` and both in ``gateway.pem``; return the first."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine to make a certificate with")
    certificate, key = folder / "gateway.crt", folder / "gateway.key"
    request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    request += ["-subj", "/CN=gateway", "-addext", f"subjectAltName=IP:{HOST}"]
    request += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, *request], check=True, capture_output=True)
    (folder / "gateway.pem").write_text(certificate.read_text() + key.read_text())
    return certificate


def write_config(kind: str, folder: Path, port: int, servers: Sequence[int]) -> Path:
    """Write a gateway's file with the ports of a test and its certificate; return its path."""
    text = (FOLDER / FILES[kind]).read_text(encoding="utf-8")
    old, new = _LISTENS[kind]
    changes = {old: new.format(host=HOST, port=port), _FILES: f"{folder}/"}
    old, new = _SERVERS[kind]
    for n, server in enumerate(servers, 1):
        changes[old.format(n=n)] = new.format(host=HOST, port=server)
    if admin := _ADMIN[kind]:
        changes[admin] = f"{folder}/admin.sock" if kind == "haproxy" else f"port_value: {free_ports(1)[0]}"
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    if kind == "nginx":
        head = f"{'user root root; ' if os.geteuid() == 0 else ''}daemon off; pid {folder}/nginx.pid;\n"
        temporary = "".join(f"  {name}_temp_path {folder}/{name};\n" for name in _NGINX_FOLDERS)
        text = head + text.replace("http {\n", f"http {{\n{temporary}", 1).replace("_processes auto", "_processes 1")
    file = folder / FILES[kind]
    file.write_text(text, encoding="utf-8")
    return file


_NGINX_FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def check_command(kind: str, file: Path) -> list[str]:
    """Return the command with which a gateway checks its file."""
    program = find_program(kind)
    match kind:
        case "nginx":
            return [program, "-t", "-q", "-p", str(file.parent), "-c", str(file)]
        case "haproxy":
            return [program, "-c", "-f", str(file)]
    return [program, "--mode", "validate", "-l", "error", "-c", str(file)]


def run_command(kind: str, file: Path) -> list[str]:
    """Return the command that runs a gateway in the foreground."""
    program = find_program(kind)
    match kind:
        case "nginx":
            return [program, "-p", str(file.parent), "-c", str(file)]
        case "haproxy":
            return [program, "-db", "-f", str(file)]
    return [program, "-l", "error", "--concurrency", "1", "--use-dynamic-base-id", "-c", str(file)]


@contextmanager
def running_gateway(
    kind: str, folder: Path, servers: Sequence[int], patience: str | None = None
) -> Iterator[RunningGateway]:
    """Run a gateway before three servers, by their ports.

    Args:
        patience: how long it waits for the rest of a request and for the next one, if not as its file says.
    """
    certificate = make_certificate(folder)
    (port,) = free_ports(1)
    file = write_config(kind, folder, port, servers)
    if patience is not None:
        file.write_text(re.sub(r"\b(30|75)s\b", patience, file.read_text()))
    command = run_command(kind, file)
    gateway = RunningGateway(kind=kind, port=port, certificate=certificate)
    with (folder / "gateway.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until(lambda: _listens(port, process, folder))
            yield gateway
        finally:
            process.terminate()


def _listens(port: int, process: subprocess.Popen[bytes], folder: Path) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        assert process.poll() is None, (folder / "gateway.log").read_text()
        return False
    return True
