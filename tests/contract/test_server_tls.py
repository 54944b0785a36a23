"""The server over TLS: real handshakes with uvicorn, and files that cannot be right."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvicorn
import uvloop
from structlog.testing import capture_logs

from plugins.grpc.tests.rig import GrpcPort, ask
from plugins.grpc.tests.rig import serving as grpc_serving
from skewless.contract.errors import AccessError, DefinitionError
from skewless.contract.settings import Settings
from skewless.serving.access.caller import ANYONE, Caller
from skewless.serving.access.certificate import PeerCertificate
from skewless.serving.access.gate import Headers
from skewless.serving.http.hot_routes import admit_anyone
from skewless.serving.http.http_server import Listener, run_http
from skewless.serving.http.tls import CertificateRenewal, certificate_end, tls_options
from skewless.serving.shutdown import Shutdown
from skewless_grpc.calls import GrpcMethod
from skewless_grpc.start import tls_credentials
from tests.worlds.waiting import until


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
    """Serve with these settings for a while, as the server does; yield the port."""
    options = uvicorn.Config(
        _application, log_config=None, lifespan="off", http="httptools", **tls_options(settings, repo)
    )
    ready, ends = threading.Event(), []
    listener = socket.create_server(("127.0.0.1", 0))

    async def serve() -> None:
        shutdown, loop = Shutdown(), asyncio.get_running_loop()
        ends.append(lambda: loop.call_soon_threadsafe(shutdown.force))
        await run_http([Listener(sock=listener, options=options)], shutdown, 0, ready.set)

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(20)
        yield listener.getsockname()[1]
    finally:
        ends[0]()
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


def test_the_end_of_a_certificate_is_known_and_0_without_one(files: Path, tmp_path: Path) -> None:
    command = [shutil.which("openssl") or "", "x509", "-in", str(files / "server.crt"), "-noout", "-enddate"]
    said = subprocess.run(command, capture_output=True, check=True)
    expected = ssl.cert_time_to_seconds(said.stdout.decode().strip().removeprefix("notAfter="))
    assert certificate_end(files / "server.crt") == expected
    (tmp_path / "text").write_text("no certificate")
    assert [certificate_end(tmp_path / name) for name in ("text", "missing")] == [0, 0]


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


def offered(port: int, context: ssl.SSLContext, name: str | None = None) -> bytes:
    """Return the certificate that the server shows, whoever signed it."""
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as link,
        context.wrap_socket(link, server_hostname=name) as connection,
    ):
        return connection.getpeercert(binary_form=True) or b""


def der(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text())


def test_of_tls_1_2_only_suites_with_forward_secrecy_and_authentication_are_spoken(files: Path) -> None:
    with serving(Settings(tls_cert="server.crt", tls_key="server.key"), files) as port:
        for suite, spoken in (
            ("ECDHE-RSA-AES128-GCM-SHA256", True),
            ("ECDHE-RSA-CHACHA20-POLY1305", True),
            ("ECDHE-RSA-AES128-SHA256", False),
            ("ECDHE-RSA-AES256-SHA", False),
            ("AES256-SHA", False),
            ("AES128-GCM-SHA256", False),
        ):
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.maximum_version = ssl.TLSVersion.TLSv1_2
            old.set_ciphers(f"{suite}:@SECLEVEL=0")
            if spoken:
                assert offered(port, old) == der(files / "server.crt")
            else:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    offered(port, old)


@pytest.fixture
def renewed(files: Path, tmp_path: Path) -> Path:
    """A folder with a server's pair, whose files may be replaced."""
    for name in ("server.crt", "server.key", "client.crt"):
        shutil.copy(files / name, tmp_path / name)
    return tmp_path


def replaced(source: Path, target: Path) -> None:
    """Put a file in the place of another at once, as those who renew certificates do."""
    Path(shutil.copy(source, target.with_suffix(".new"))).rename(target)


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", [None, "localhost"], ids=["no name", "a name"])
def test_a_renewed_certificate_is_taken_up(
    files: Path, renewed: Path, name: str | None, newest: ssl.TLSVersion
) -> None:
    def shown() -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = newest
        return offered(port, context, name)

    with serving(Settings(tls_cert="server.crt", tls_key="server.key"), renewed) as port:
        assert shown() == der(files / "server.crt")
        standing = HTTPSConnection("127.0.0.1", port, context=trusting(files), timeout=20)
        standing.request("GET", "/")
        assert standing.getresponse().read() == b"https!"
        replaced(files / "client.crt", renewed / "server.crt")
        replaced(files / "client.key", renewed / "server.key")
        until(lambda: shown() == der(files / "client.crt"))
        standing.request("GET", "/")
        assert standing.getresponse().read() == b"https!"
        standing.close()


def test_files_that_do_not_fit_together_leave_the_certificate_as_it_was(files: Path, renewed: Path) -> None:
    settings = Settings(tls_cert="server.crt", tls_key="server.key")
    options = uvicorn.Config(_application, log_config=None, **tls_options(settings, renewed))
    renewal = CertificateRenewal(options)
    first = renewal.context
    replaced(files / "client.crt", renewed / "server.crt")
    with capture_logs() as said:
        renewal.reload_if_changed()
        renewal.reload_if_changed()
    assert [line["event"] for line in said] == ["tls_certificate_unchanged"]
    assert "names the key of another certificate" in said[0]["error"]
    assert renewal.context is first
    (renewed / "server.key").unlink()
    with capture_logs() as said:
        renewal.reload_if_changed()
    assert [line["event"] for line in said] == ["tls_certificate_unchanged"]
    replaced(files / "client.key", renewed / "server.key")
    with capture_logs() as said:
        renewal.reload_if_changed()
    assert [line["event"] for line in said] == ["tls_certificate_read"]
    assert renewal.context is not first


def answers(port: int, context: ssl.SSLContext) -> bool:
    with suppress(ssl.SSLError, ConnectionError):
        return get(port, context) == "https!"
    return False


def test_a_renewed_authority_decides_about_clients(files: Path, renewed: Path) -> None:
    settings = Settings(tls_cert="server.crt", tls_key="server.key", tls_ca="client.crt")
    with serving(settings, renewed) as port:
        assert get(port, trusting(files, "client")) == "https!"
        replaced(files / "server.crt", renewed / "client.crt")
        until(lambda: answers(port, trusting(files, "server")))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            get(port, trusting(files, "client"))


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
        ("server.crt", None, None, "setting 'tls_cert': requires other settings"),
        (None, "server.key", None, "setting 'tls_key': requires other settings"),
        (None, None, "client.crt", "setting 'tls_ca': requires other settings"),
        ("gone.crt", "server.key", None, "setting 'tls_cert': names a file that cannot be read: No such file.*gone"),
        ("server.crt", "gone.key", None, "setting 'tls_key': names a file that cannot be read: No such file.*gone"),
        ("server.crt", "server.key", "gone.crt", "setting 'tls_ca': names a file that cannot be read: No such"),
        (".", "server.key", None, "setting 'tls_cert': names a file that cannot be read: Is a directory"),
        ("junk", "server.key", None, "setting 'tls_cert': names a file without a certificate"),
        ("server.key", "server.crt", None, "setting 'tls_cert': names a file without a certificate"),
        ("server.crt", "junk", None, "setting 'tls_key': names a file without a readable private key"),
        ("server.crt", "client.key", None, "setting 'tls_key': names the key of another certificate"),
        ("locked.crt", "locked.key", None, "without a readable private key.*without a passphrase"),
        ("server.crt", "server.key", "junk", "setting 'tls_ca': names a file without a certificate"),
    ],
)
def test_files_that_cannot_be_right_are_refused_with_the_fix(
    files: Path, cert: str | None, key: str | None, authority: str | None, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        tls_options(Settings(tls_cert=cert, tls_key=key, tls_ca=authority), files)


def _admit_named(_: Headers, certificate: PeerCertificate | None) -> Caller:
    if certificate is None or certificate.names != ("subject:CN=client",):
        raise AccessError("client certificate", "is unknown", value=certificate, fix="show another")
    return ANYONE


ECHO, NAMED = "/t.T/Echo", "/t.T/Named"
METHODS = {
    path: GrpcMethod(admit=admit, handle=lambda call, message: call.reply(message))
    for path, admit in ((ECHO, admit_anyone), (NAMED, _admit_named))
}


@contextmanager
def serving_grpc(settings: Settings, repo: Path) -> Iterator[GrpcPort]:
    """Serve gRPC with these settings for a while, as the server does."""
    options = uvicorn.Config(_application, log_config=None, **tls_options(settings, repo))
    with grpc_serving(METHODS, credentials=tls_credentials(options)) as grpc_port:
        yield grpc_port


def test_grpc_has_the_certificate_of_http_and_its_renewal(files: Path, renewed: Path) -> None:
    def code(name: str) -> str:
        credentials = grpc.ssl_channel_credentials((files / f"{name}.crt").read_bytes())
        return ask(grpc_port.address, ECHO, b"x", credentials=credentials).code

    with serving_grpc(Settings(tls_cert="server.crt", tls_key="server.key"), renewed) as grpc_port:
        assert (code("server"), code("client")) == ("OK", "UNAVAILABLE")
        replaced(files / "junk", renewed / "server.crt")
        assert code("server") == "OK"
        replaced(files / "client.crt", renewed / "server.crt")
        replaced(files / "client.key", renewed / "server.key")
        assert (code("server"), code("client")) == ("UNAVAILABLE", "OK")


@pytest.mark.parametrize("path", [ECHO, NAMED])
def test_grpc_wants_a_client_certificate_if_http_does_and_reads_its_names(files: Path, path: str) -> None:
    settings = Settings(tls_cert="server.crt", tls_key="server.key", tls_ca="client.crt")
    root = (files / "server.crt").read_bytes()
    pairs = [[(files / f"{name}.{end}").read_bytes() for end in ("key", "crt")] for name in ("client", "server")]
    with serving_grpc(settings, files) as grpc_port:
        codes = [
            ask(grpc_port.address, path, b"x", credentials=grpc.ssl_channel_credentials(root, *pair)).code
            for pair in ([], *pairs)
        ]
    assert codes == ["UNAVAILABLE", "OK", "UNAVAILABLE"]
