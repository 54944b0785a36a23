"""The server over TLS: real handshakes with uvicorn, and files that cannot be right."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from serving.http.tls import tls_options
from skewless.errors import DefinitionError
from skewless.settings import Settings


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's pair, a client's pair, a pair behind a passphrase, and a file of junk."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    for name, *locked in (("server", "-nodes"), ("client", "-nodes"), ("locked", "-passout", "pass:hush")):
        pair = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt")]
        request = ["req", "-x509", "-newkey", "rsa:2048", "-days", "1", "-subj", f"/CN={name}", *locked]
        extra = ["-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([openssl, *request, *extra, *pair], check=True, capture_output=True)
    (folder / "junk").write_text("junk")
    return folder


async def _application(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, ARG001 - ASGI
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": scope["scheme"].encode() + b"!"})


@contextmanager
def serving(settings: Settings, repo: Path) -> Iterator[int]:
    """Serve with these settings for a while; yield the port."""
    options = uvicorn.Config(
        _application, log_config=None, lifespan="off", http="httptools", **tls_options(settings, repo)
    )
    server = uvicorn.Server(options)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
    assert not thread.is_alive()


def get(port: int, context: ssl.SSLContext) -> str:
    connection = HTTPSConnection("127.0.0.1", port, context=context, timeout=20)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def trusting(files: Path, client: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files / "server.crt")
    if client is not None:
        context.load_cert_chain(files / f"{client}.crt", files / f"{client}.key")
    return context


def test_a_client_that_knows_the_certificate_is_answered_and_another_is_not(files: Path) -> None:
    with serving(Settings(tls_cert="server.crt", tls_key="server.key"), files) as port:
        assert get(port, trusting(files)) == "https!"
        with pytest.raises(ssl.SSLCertVerificationError):
            get(port, ssl.create_default_context())


def test_the_oldest_version_that_is_spoken_is_1_2(files: Path) -> None:
    old = trusting(files)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(Settings(tls_cert="server.crt", tls_key="server.key"), files) as port:
        assert get(port, old) == "https!"
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises(ssl.SSLError):
            get(port, old)


def test_with_an_authority_a_client_needs_a_certificate_of_it(files: Path) -> None:
    settings = Settings(tls_cert="server.crt", tls_key=str(files / "server.key"), tls_ca="client.crt")
    with serving(settings, files) as port:
        assert get(port, trusting(files, "client")) == "https!"
        for context in (trusting(files), trusting(files, "server")):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                get(port, context)


def test_without_settings_there_is_plain_http(tmp_path: Path) -> None:
    assert tls_options(Settings(), tmp_path) == {}


@pytest.mark.parametrize(
    ("cert", "key", "authority", "message"),
    [
        ("server.crt", None, None, "setting 'tls_cert': needs others"),
        (None, "server.key", None, "setting 'tls_key': needs others"),
        (None, None, "client.crt", "setting 'tls_ca': needs others"),
        ("gone.crt", "server.key", None, "setting 'tls_cert': names a file that cannot be read: No such file.*gone"),
        ("server.crt", "gone.key", None, "setting 'tls_key': names a file that cannot be read: No such file.*gone"),
        ("server.crt", "server.key", "gone.crt", "setting 'tls_ca': names a file that cannot be read: No such"),
        (".", "server.key", None, "setting 'tls_cert': names a file that cannot be read: Is a directory"),
        ("junk", "server.key", None, "setting 'tls_cert': names a file without a certificate"),
        ("server.key", "server.crt", None, "setting 'tls_cert': names a file without a certificate"),
        ("server.crt", "junk", None, "setting 'tls_key': names a file without a private key"),
        ("server.crt", "client.key", None, "setting 'tls_key': names the key of another certificate"),
        ("locked.crt", "locked.key", None, "without a private key that can be read.*without a passphrase"),
        ("server.crt", "server.key", "junk", "setting 'tls_ca': names a file without a certificate"),
    ],
)
def test_files_that_cannot_be_right_are_refused_with_the_fix(
    files: Path, cert: str | None, key: str | None, authority: str | None, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        tls_options(Settings(tls_cert=cert, tls_key=key, tls_ca=authority), files)
