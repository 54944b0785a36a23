"""The same requests with and without a gateway: TLS, addresses, headers, limits, sticky keys and readiness."""

from __future__ import annotations

import signal
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from skewless.contract.settings import Settings
from tests.nightly.deploy.callers import calling
from tests.nightly.deploy.gateways import CHECKING, HOST, KINDS, RunningGateway, running_gateway
from tests.nightly.deploy.replicas import Replicas, replicas
from tests.worlds.trained import NOW, ask, opened_copy
from tests.worlds.waiting import until

pytestmark = pytest.mark.soak
FOR_CLIENTS = [
    "/health/live",
    "/health/ready",
    "/models",
    "/models/fraud",
    "/v2",
    "/v2/health/ready",
    "/v2/models/fraud",
]
NOT_FOR_CLIENTS = [
    ("GET", "/metrics"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/predict"),
    ("POST", "/models/refresh"),
    ("POST", "/models/fraud/rollback"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/fraud/unload"),
    ("DELETE", "/predict"),
    ("GET", "//metrics"),
    ("GET", "/%6detrics"),
    ("GET", "/models/../metrics"),
    ("GET", "/predict/../metrics"),
    ("POST", "/predict/../models/refresh"),
    ("POST", "/predict%2f..%2fmodels/refresh"),
    ("GET", "/metrics?/models"),
    ("GET", "/metrics;/models"),
]


@pytest.fixture(scope="module")
def servers(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    """Three servers with a cache of rows; a test leaves all of them running."""
    with (
        opened_copy(trained, tmp_path_factory.mktemp("gateways") / "p") as place,
        replicas(place, SKEWLESS_FEATURE_CACHE_MS="600000") as servers,
    ):
        yield servers


@pytest.fixture(scope="module", params=KINDS)
def gateway(
    request: pytest.FixtureRequest, servers: Replicas, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    with running_gateway(request.param, tmp_path_factory.mktemp("gateway"), servers.ports) as gateway:
        until(lambda: gateway.ask("GET", "/health/ready")[0] == 200)
        yield gateway


def body_of(card: int) -> bytes:
    return orjson.dumps({"rows": ask(1, card), "as_of": NOW})


def place_of(gateway: RunningGateway, servers: Replicas, key: str) -> int:
    """Return the number of the server that answers a request with a sticky key."""
    before = {n: servers.predicted(n) for n in servers.servers}
    headers = {"X-API-Key": servers.key, "X-Sticky-Key": key}
    assert gateway.ask("POST", "/predict", body_of(0), headers)[0] == 200
    (asked,) = (n for n, count in before.items() if servers.predicted(n) > count)
    return asked


def wait_for_all(gateway: RunningGateway, servers: Replicas) -> None:
    """Wait until the gateway sends requests to all servers: some may have started a moment ago."""
    headers = {"X-API-Key": servers.key}
    seen = {n: servers.predicted(n) for n in servers.servers}

    def all_answer() -> bool:
        assert gateway.ask("POST", "/predict", body_of(0), headers)[0] == 200
        return all(servers.predicted(n) > count for n, count in seen.items())

    until(all_answer)


def handshake(gateway: RunningGateway, version: ssl.TLSVersion, ciphers: str = "ALL:@SECLEVEL=0") -> str | None:
    """Return the version of the protocol that was agreed on."""
    context = gateway.tls
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the old versions, which must be refused
        context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    with (
        socket.create_connection((HOST, gateway.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        return connection.version()


def test_old_tls_is_refused(gateway: RunningGateway) -> None:
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            handshake(gateway, version)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(gateway, ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA256")  # CBC
    assert handshake(gateway, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert handshake(gateway, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"


def test_clients_reach_what_is_for_clients(gateway: RunningGateway, servers: Replicas) -> None:
    key = {"X-API-Key": servers.key}
    assert [gateway.ask("GET", path, headers=key)[0] for path in FOR_CLIENTS] == [200] * len(FOR_CLIENTS)
    assert [gateway.ask(method, path, b"{}", key)[0] for method, path in NOT_FOR_CLIENTS] == [404] * len(
        NOT_FOR_CLIENTS
    )
    row = {"prediction_id": "x", "label": 1}
    assert gateway.ask("POST", "/feedback", orjson.dumps({"feedback": [row]}), key)[0] == 202
    # The errors are the server's own: it knows the address, and asks for a key.
    assert b"event source" in gateway.ask("POST", "/events/none", b"{}", key)[2]
    assert gateway.ask("POST", "/predict", body_of(0))[0] == 401
    assert gateway.ask("POST", "/predict", body_of(0), {"Authorization": f"Bearer {servers.key}"})[0] == 200


def test_limits_are_the_same_behind_a_gateway(gateway: RunningGateway, servers: Replicas) -> None:
    key = {"X-API-Key": servers.key}
    full = body_of(0).ljust(Settings().body_bytes)
    assert gateway.ask("POST", "/predict", full, key)[0] == 200
    assert gateway.ask("POST", "/predict", full + b" ", key)[0] == 413
    assert gateway.ask("POST", "/events/none", full + b" ", key)[0] == 404
    assert gateway.ask("POST", "/predict", body_of(0), {**key, "X-Long": "a" * 60_000})[0] == 200
    for name in ("X-Long", "Cookie"):
        assert gateway.ask("POST", "/predict", body_of(0), {**key, name: "a" * 66_000})[0] in {400, 414, 431}


def test_a_sticky_key_stays_on_its_server(gateway: RunningGateway, servers: Replicas) -> None:
    wait_for_all(gateway, servers)
    keys = [f"card-{i}" for i in range(40)]
    first = {key: place_of(gateway, servers, key) for key in keys}
    assert set(first.values()) == {0, 1, 2}
    assert {key: place_of(gateway, servers, key) for key in keys} == first
    servers.signal(1, signal.SIGKILL)
    servers.wait(1)
    until(lambda: gateway.ask("GET", "/health/ready")[0] == 200)
    later = {key: place_of(gateway, servers, key) for key in keys}
    moved = [key for key in keys if first[key] != 1 and later[key] != first[key]]
    # Envoy makes a larger ring for two servers, so that some keys of the others move as well.
    assert len(moved) <= (len(keys) // 3 if gateway.kind == "envoy" else 0), moved
    servers.start(1)
    until(lambda: {key: place_of(gateway, servers, key) for key in keys} == first)


def test_a_sticky_key_is_worth_it_with_a_cache_of_rows(
    gateway: RunningGateway, servers: Replicas, tell: Callable[[str], None]
) -> None:
    wait_for_all(gateway, servers)
    misses, first = [], 1_000 * (1 + KINDS.index(gateway.kind))  # cards that no test has asked for
    for has_key, cards in ((True, range(first, first + 30)), (False, range(first + 500, first + 530))):
        before = servers.total("skewless_cache_misses_total")
        for i in range(8):
            for card in cards:
                headers = {"X-API-Key": servers.key, **({"X-Sticky-Key": f"{card}"} if has_key else {})}
                assert gateway.ask("POST", "/predict", body_of(card), headers)[0] == 200, i
        misses.append(servers.total("skewless_cache_misses_total") - before)
    assert misses[0] < 0.6 * misses[1], misses
    tell(f"{gateway.kind}: rows that the cache lacked, with and without a sticky key: {misses}")


def test_a_server_that_is_not_ready_is_not_asked(gateway: RunningGateway, servers: Replicas) -> None:
    if gateway.kind not in CHECKING:
        pytest.skip("nginx has no active health checks")
    servers.signal(2, signal.SIGKILL)
    servers.wait(2)
    servers.start(2, SKEWLESS_DRAIN_SECONDS="12")
    with calling(gateway, servers.questions(60)) as callers:
        before = servers.predicted(2)
        until(lambda: servers.predicted(2) > before)
        servers.signal(2, signal.SIGTERM)
        time.sleep(3)
        before = servers.predicted(2)
        callers.wait_answers(500)
        assert servers.predicted(2) == before
    assert callers.failures == []
    assert servers.wait(2) == 0
    servers.start(2)
