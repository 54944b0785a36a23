"""Rows over TLS, with a certificate that the client checks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.reads.online.redis_store import RedisWriter
from tests.contract.store import RowStore, ranked
from tests.servers.node import BUS, Node, running
from tests.servers.programs import program


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine to make a certificate with")
    name = tmp_path / "server.crt"
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(tmp_path / "server.key"), "-out", str(name)]
    subprocess.run([openssl, *request, *extra], check=True, capture_output=True)
    return name


def test_rows_go_over_tls(tmp_path: Path, certificate: Path) -> None:
    options = {
        "tls-cert-file": str(certificate),
        "tls-key-file": str(certificate.with_suffix(".key")),
        "tls-ca-cert-file": str(certificate),
        "tls-auth-clients": "no",
    }
    with running(Node(program("redis"), tmp_path / "node", options)) as node:
        url = f"rediss://127.0.0.1:{node.port + BUS}/0"
        store = RowStore.at(f"{url}?ssl_ca_certs={certificate}")
        assert store.put((b"k", ranked(1))) == 1
        assert store.get(b"k", b"none") == [ranked(1), None]
        with pytest.raises(StoreError, match="certificate verify failed"):
            RedisWriter(url)
