"""Mutual TLS over real sockets: a name in the client's certificate stands for a key, in both lanes."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPSConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import uvicorn

from skewless.contract.clock import SystemClock
from skewless.contract.settings import Settings
from skewless.infra.platform.access.api_keys import ApiKey, KeyStore, generate_secret, hash_secret
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.port import OnlineReader
from skewless.serving.access.certificate import PeerCertificate
from skewless.serving.access.gate import KeyAccess
from skewless.serving.app import ServingContext, create_app, hot_routes
from skewless.serving.events import EventForwarder
from skewless.serving.http.feedback_routes import Feedback
from skewless.serving.http.hot_protocol import make_protocol
from skewless.serving.http.tls import tls_options
from skewless.serving.http.wire_limits import WireLimits
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor
from tests.servers.certificates import Authority
from tests.worlds.waiting import until

DAY_US = 86_400_000_000
FORMAT = "subject:CN=plain,O=Shop\\, Ltd."


@dataclass
class SecureServer:
    """A server that requires client certificates; it has no models: who is let in is told that the body is wrong."""

    folder: Path
    authority: Authority
    port: int = 0
    later_us: int = 0
    servers: list[uvicorn.Server] = field(default_factory=list)
    secret: str = field(default_factory=lambda: generate_secret("header"))

    def now_us(self) -> int:
        return time.time_ns() // 1_000 + self.later_us

    def connect(self, *files: Path) -> HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.authority.path))
        if files:
            context.load_cert_chain(*map(str, files))
        return HTTPSConnection("localhost", self.port, context=context, timeout=20)

    async def serve(self, store: KeyStore, link: socket.socket) -> None:
        serving = ServingContext(
            models=cast("ModelTable", SimpleNamespace(all=list, problems={})),
            predictor=Predictor(online=cast("OnlineReader", None), clock=SystemClock(), log=None),
            metrics=Metrics(),
            events=cast("EventForwarder", None),
            feedback=cast("Feedback", None),
            reload_seconds=3_600,
            access=KeyAccess(store, self.now_us),
            local=False,
        )
        routes = hot_routes(serving)
        lane = make_protocol(routes, WireLimits(body_bytes=1_000))
        settings = Settings(tls_cert="localhost.crt", tls_key="localhost.key", tls_ca="ca.crt")
        options = tls_options(settings, self.folder)
        config = uvicorn.Config(create_app(serving, routes), http=lane, log_config=None, **options)
        self.servers.append(uvicorn.Server(config))
        await self.servers[0].serve(sockets=[link])


def ask(connection: HTTPSConnection, method: str, path: str, **headers: str) -> tuple[int, Any]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, "{" if method == "POST" else None, sent)
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureServer]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    authority.issue("localhost", dns=["localhost"])
    server = SecureServer(folder, authority)
    store = KeyStore(ProjectState(folder / "state"))

    def add(name: str, certificate: str | None, **parts: Any) -> None:  # noqa: ANN401 - of an ApiKey
        digest = hash_secret(server.secret.encode()) if certificate is None else None
        given = {"scopes": frozenset({"predict"}), "created_us": 1, **parts}
        store.add(ApiKey(name=name, digest=digest, certificate=certificate, **given))

    add("mesh", "uri:spiffe://shop/web")
    add("host", "dns:web.shop.example")
    add("mail", "email:web@shop.example")
    add("plain", FORMAT, scopes=frozenset({"feedback"}))
    add("limited", "uri:spiffe://shop/fraud", models=frozenset({"fraud"}))
    add("header", None, scopes=frozenset({"admin"}))
    with socket.create_server(("127.0.0.1", 0)) as link:
        server.port = link.getsockname()[1]
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(store, link)))
        thread.start()
        until(lambda: server.servers and server.servers[0].started)
        yield server
        server.servers[0].should_exit = True
        thread.join(20)


@pytest.mark.parametrize(
    ("name", "alternatives", "statuses"),
    [
        ("mesh", {"uris": ["spiffe://shop/other", "spiffe://shop/web"]}, (400, 200, 403)),
        ("host", {"dns": ["WEB.shop.example"]}, (400, 200, 403)),
        ("mail", {"emails": ["web@shop.example"]}, (400, 200, 403)),
        ("plain", {}, (403, 200, 403)),
        ("stranger", {}, (401, 401, 401)),
        ("longer", {"uris": ["spiffe://shop/web/more"]}, (401, 401, 401)),
        ("wild", {"dns": ["*.shop.example"]}, (401, 401, 401)),
    ],
)
def test_a_name_in_the_certificate_stands_for_its_key(
    secure: SecureServer, name: str, alternatives: dict[str, Any], statuses: tuple[int, ...]
) -> None:
    connection = secure.connect(*secure.authority.issue(name, **alternatives))
    requests = [("POST", "/predict"), ("GET", "/models"), ("POST", "/models/refresh")]
    replies = [ask(connection, *request) for request in requests * 2]
    assert tuple(status for status, _ in replies) == statuses * 2
    if statuses[0] == 401:
        assert replies[0][1]["error"]["problem"].startswith("is missing, and no key has a name of the client")
    connection.close()


def test_a_limited_certificate_is_refused_other_models(secure: SecureServer) -> None:
    connection = secure.connect(*secure.authority.issue("fraud", uris=["spiffe://shop/fraud"]))
    status, body = ask(connection, "GET", "/models/pricing")
    says = "client certificate 'limited': may not use the model 'pricing'"
    assert (status, says in body["error"]["message"]) == (403, True)
    connection.close()


def test_a_key_in_a_header_counts_before_the_certificate(secure: SecureServer) -> None:
    connection = secure.connect(*secure.authority.issue("mesh2", uris=["spiffe://shop/web"]))
    assert ask(connection, "POST", "/predict", X_API_Key=secure.secret)[0] == 403
    assert ask(connection, "POST", "/predict", X_API_Key="sk_header_x")[0] == 401
    assert ask(connection, "POST", "/predict")[0] == 400
    connection.close()


def test_without_a_certificate_of_the_authority_there_is_no_connection(secure: SecureServer, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other").issue("mesh", uris=["spiffe://shop/web"])
    for files in ((), other):
        connection = secure.connect(*files)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(connection, "GET", "/health/live")
        connection.close()


def test_a_certificate_that_expires_on_an_open_connection_counts_no_more(secure: SecureServer) -> None:
    connection = secure.connect(*secure.authority.issue("mesh3", uris=["spiffe://shop/web"]))
    assert ask(connection, "POST", "/predict")[0] == 400
    secure.later_us = 2 * DAY_US
    status, body = ask(connection, "POST", "/predict")
    secure.later_us = 0
    assert (status, body["error"]["problem"]) == (401, "has expired, or the client certificate has")
    connection.close()


def test_grpc_gives_the_same_names_as_pem(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pem = authority.issue("plain", dns=["A.example"], uris=["spiffe://x"], emails=["a@b.example"])[0].read_bytes()
    certificate = PeerCertificate.from_pem(pem)
    assert certificate.names == ("dns:a.example", "uri:spiffe://x", "email:a@b.example", FORMAT)
    first, last = certificate.validity_us
    assert last - first == DAY_US + 3_600_000_000 + 999_999
