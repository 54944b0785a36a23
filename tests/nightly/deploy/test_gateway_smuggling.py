"""Behind each gateway, the server sees only requests for clients, and every caller gets its own reply."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

import pytest

from tests.nightly.deploy.gateways import HOST, KINDS, RunningGateway, running_gateway
from tests.nightly.integration.serving.gateways import OriginServer, origin
from tests.nightly.integration.serving.test_gateways import ATTACKS, INNER
from tests.unit.serving.http.raw_http import case

pytestmark = pytest.mark.soak
RANDOM = 400
LAST = b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
_ALLOWED = re.compile(r"/predict(\?.*)?|/health/(ready|live)")
_REPLY = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n(.*?)\r\n\r\n", re.DOTALL)
FOLDED = b"POST /hot HTTP/1.1\r\nhost: x\r\nx-id: a\r\n b\r\ncontent-length: %d\r\n\r\n%b" % (len(INNER), INNER)
MORE = [
    FOLDED,
    FOLDED.replace(b"x-id: a\r\n b", b"x-id: a\r\n\tcontent-length: 0"),
    b"POST /hot HTTP/1.1\r\nhost: x\r\nx-long: %b\r\ncontent-length: 0\r\n\r\n" % (b"a" * 70_000) + INNER,
    b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}" * 20 + INNER,
]


@dataclass(frozen=True)
class AttackedServer:
    """A gateway with our server behind it."""

    gateway: RunningGateway
    origin: OriginServer
    numbers: Iterator[int] = field(default_factory=count)

    def send(self, data: bytes) -> bytes:
        """Return all bytes received until the gateway closes the connection."""
        received = b""
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection((HOST, self.gateway.port), 60) as plain,
            self.gateway.tls.wrap_socket(plain, server_hostname=HOST) as connection,
        ):
            connection.sendall(data)
            while part := connection.recv(65_536):
                received += part
        return received

    def attack(self, data: bytes) -> bytes:
        """Send an attack for ``/predict``, and check that others get their own replies after it."""
        received = self.send(data.replace(b" /hot", b" /predict", 1) + LAST)
        for size in (0, 7):
            name = b"other-%d" % next(self.numbers)
            request = (
                b"POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-id: %b\r\ncontent-length: %d\r\n\r\n%b"
            )
            reply = self.send(request % (name, size, b"b" * size))
            match = _REPLY.match(reply)
            assert match, reply
            assert (match[1], reply[match.end() :]) == (b"200", b"%b %d" % (name, size)), reply
        return received

    def strangers(self) -> set[str]:
        """Return the targets that the server has seen and that no client may ask for."""
        return {target for target in self.origin.targets if not _ALLOWED.fullmatch(target)}


@pytest.fixture(scope="module", params=KINDS)
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AttackedServer]:
    folder = tmp_path_factory.mktemp("gateway")
    with origin() as server, running_gateway(request.param, folder, (server.port,) * 3, patience="2s") as gateway:
        yield AttackedServer(gateway, server)


def test_no_attack_gets_past_a_gateway(attacked: AttackedServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        received = list(pool.map(attacked.attack, [*ATTACKS, *MORE]))
    assert attacked.strangers() == set()
    assert not [reply for reply in received if b"smuggled" in reply]
    # The pipelined requests are answered one by one, and the last one of them is refused.
    assert [int(status) for status, _ in _REPLY.findall(received[-1])][:21] == [200] * 20 + [404]


def test_nothing_random_gets_past_a_gateway(attacked: AttackedServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        received = list(pool.map(attacked.attack, [case(random.Random(seed)).whole for seed in range(RANDOM)]))
    assert attacked.strangers() == set()
    assert sum(b" 200 " in reply for reply in received) > RANDOM / 5
