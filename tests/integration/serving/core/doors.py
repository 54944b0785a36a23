"""One server with two ways in: the fast lane, and uvicorn's own protocol, behind which all is the application's."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any

import uvicorn

from skewless.contract.clock import ManualClock
from skewless.contract.settings import Settings
from skewless.contract.spec import LogPolicy
from skewless.contract.windows.view import EventSource
from skewless.infra.platform.access.api_keys import ApiKey, KeyStore, Scope, generate_secret, hash_secret
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.infra.records.outcomes.log import OutcomeWriter, outcome_spool
from skewless.serving.access.gate import KeyAccess, Tokens
from skewless.serving.app import AddedRoutes, ServingContext, create_app, hot_routes
from skewless.serving.events import EventForwarder
from skewless.serving.http.feedback_routes import Feedback
from skewless.serving.http.hot_protocol import make_protocol
from skewless.serving.http.wire_limits import WireLimits
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor
from tests.worlds.trained import Sandbox
from tests.worlds.waiting import until

SCOPES: tuple[Scope, ...] = ("predict", "as_of", "feedback", "admin")
ALL = "all"
SOURCE = "payments"
_IDLE_S = 2.0
NOBODY: Mapping[str, frozenset[str]] = {}
NO_ROUTES: Mapping[str, AddedRoutes] = {}
_OF_EACH = ("date", "x-request-id")  # headers of one reply; an error has a new id


@dataclass(frozen=True)
class DoorReply:
    """What came back, but for what differs each time."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Door:
    """One way in, for who has all scopes unless another key is named."""

    port: int
    keys: Mapping[str, str]

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, key: str | None = ALL, **headers: str
    ) -> DoorReply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            sent["X-API-Key"] = self.keys.get(key, key)
        try:
            connection.request(method, path, body, sent)
            found = connection.getresponse()
            told = {name.lower(): value for name, value in found.getheaders() if name.lower() not in _OF_EACH}
            return DoorReply(found.status, told, found.read())
        finally:
            connection.close()


class Connection:
    """A connection through a door that is used again and again."""

    def __init__(self, door: Door) -> None:
        self._headers = {"X-API-Key": door.keys[ALL]}
        self._link = HTTPConnection("127.0.0.1", door.port, timeout=20)
        self._asked = time.monotonic()

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> DoorReply:
        return self.ask("POST", path, body, headers)

    def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> DoorReply:
        if time.monotonic() - self._asked > _IDLE_S:
            self._link.close()  # as a server does some time; the next request opens it again
        self._asked = time.monotonic()
        self._link.request(method, path, body, {**headers, **self._headers})
        found = self._link.getresponse()
        return DoorReply(found.status, {name.lower(): value for name, value in found.getheaders()}, found.read())

    def close(self) -> None:
        self._link.close()


class _Events(EventForwarder):
    """Knows one source more, whose stream takes everything."""

    def source(self, name: str) -> EventSource:
        if name != SOURCE:
            return super().source(name)
        return EventSource(name=name, kind="push", event_column="at", columns=(), earliest_us=0, latest_us=1)

    async def send(self, source: EventSource, payloads: Sequence[bytes], log: LogPolicy = "best_effort") -> None:
        """Drop them."""


@dataclass
class Doors:
    """Both ways in; the clock stands still."""

    place: Sandbox
    clock: ManualClock
    keys: Mapping[str, str]
    links: list[socket.socket]
    tokens: Tokens | None = None
    added: Mapping[str, AddedRoutes] = field(default_factory=dict)
    servers: list[uvicorn.Server] = field(default_factory=list)

    @property
    def fast(self) -> Door:
        return Door(self.links[0].getsockname()[1], self.keys)

    @property
    def slow(self) -> Door:
        return Door(self.links[1].getsockname()[1], self.keys)

    async def serve(self, file: KeyStore) -> None:
        place, reader, metrics = self.place, RedisReader(self.place.project.redis_url), Metrics()
        models = ModelTable(
            repo=place.repo, state=ProjectState(place.state), store=place.project.store, online=reader, metrics=metrics
        )
        await models.load()
        log = place.log()
        predictor = Predictor(online=reader, clock=self.clock, log=log, metrics=metrics)
        serving = ServingContext(
            models=models,
            predictor=predictor,
            metrics=metrics,
            clock=self.clock,
            reload_seconds=3_600,
            access=KeyAccess(file, self.clock.now_us, tokens=self.tokens),
            added=self.added,
            body_bytes=100_000,
            events=_Events(
                ProjectState(place.state), place.project.redis_url, place.project.store, Settings(event_bytes=10_000)
            ),
            feedback=Feedback(
                OutcomeWriter(outcome_spool(ProjectState(place.state))), models, metrics, self.clock, max_rows=10_000
            ),
        )
        routes = hot_routes(serving)
        protocols: list[Any] = [make_protocol(routes, WireLimits(body_bytes=100_000)), "httptools"]
        for protocol in protocols:
            app = create_app(serving, routes)
            self.servers.append(uvicorn.Server(uvicorn.Config(app, http=protocol, ws="none", log_config=None)))
        await asyncio.gather(
            *(server.serve(sockets=[link]) for server, link in zip(self.servers, self.links, strict=True))
        )
        await predictor.close()
        log.close()
        await reader.close()


def _listening() -> socket.socket:
    # asyncio sends small parts at once only where the socket says that it is TCP.
    link = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    link.bind(("127.0.0.1", 0))
    link.listen()
    return link


@contextmanager
def opened_doors(
    place: Sandbox,
    limited: Mapping[str, frozenset[str]] = NOBODY,
    tokens: Tokens | None = None,
    added: Mapping[str, AddedRoutes] = NO_ROUTES,
) -> Iterator[Doors]:
    """Serve a project for a while, to who has a key for one scope each, or for all.

    Args:
        limited: names of more keys, for all scopes, with their models.
        tokens: verifies tokens; None: only keys are accepted.
        added: routes of plug-ins.
    """
    file, keys = KeyStore(ProjectState(place.state)), {}
    for name, models in limited.items():
        keys[name] = generate_secret(name)
        digest = hash_secret(keys[name].encode())
        file.add(ApiKey(name=name, digest=digest, scopes=frozenset(SCOPES), models=models, created_us=1))
    for held, scopes in (*((scope, {scope}) for scope in SCOPES), (ALL, set(SCOPES))):
        name = held.replace("_", "-")
        keys[held] = generate_secret(name)
        digest = hash_secret(keys[held].encode())
        file.add(ApiKey(name=name, digest=digest, scopes=frozenset(scopes), rate=None, created_us=1))
    with ExitStack() as stack:
        links = [stack.enter_context(_listening()) for _ in range(2)]
        doors = Doors(place, ManualClock(place.now_us()), keys, links, tokens, added)
        thread = threading.Thread(target=lambda: asyncio.run(doors.serve(file)))
        thread.start()
        until(lambda: len(doors.servers) == len(links) and all(server.started for server in doors.servers))
        yield doors
        for server in doors.servers:
            server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
