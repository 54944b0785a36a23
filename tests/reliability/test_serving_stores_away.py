"""A server goes on, whichever of its calls of database and storage fails: each request is answered meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest

from skewless.contract.errors import AccessError, StoreError
from skewless.infra.platform.access.api_keys import ApiKey, KeyStore, generate_secret, hash_secret
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.objects import FolderStorage
from skewless.infra.platform.storage.sqlite_database import AnswerMemory
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.infra.records.predictions.segments import prediction_spool
from skewless.serving.access.gate import KeyAccess
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.process import serve
from skewless.serving.server_config import ServerConfig
from skewless.serving.shutdown import Shutdown
from tests.worlds.outages import Calls, Outage
from tests.worlds.trained import MODEL, Sandbox, ask, opened_copy
from tests.worlds.waiting import PATIENCE_S, until

CALLS: Calls = {
    Database: ("execute", "transaction", "snapshot"),
    FolderStorage: ("put", "put_file", "local_path", "describe", "list_objects"),
}
MOST = 150  # calls of the run that are certain to come
START = 40  # calls until it serves
FEW = 8
NEW = "000002"
SOON = {
    "access.gate._KEYS_SECONDS": 0.05,
    "app._HEARTBEAT_SECONDS": 0.05,
    "models.loaded_models._RETRY_SECONDS": 0.05,
    "models.traffic_policies._WRITE_SECONDS": 0.05,
}


@pytest.fixture(scope="module")
def shared(two_versions: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A project with two versions, of which each test makes the second the champion while its server runs."""
    with opened_copy(two_versions, tmp_path_factory.mktemp("away") / "p") as place:
        yield place


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and leave garbage collector and threads of the test's process as they are."""
    for name, seconds in SOON.items():
        monkeypatch.setattr(f"skewless.serving.{name}", seconds)
    for name, seconds in {"_PAUSE_S": 0.05, "_LONGEST_PAUSE_S": 0.1}.items():
        monkeypatch.setattr(f"skewless.infra.log.spool.{name}", seconds)
    monkeypatch.setattr("skewless.infra.platform.storage.sqlite_database._AWAY_S", 0.05)
    monkeypatch.setattr("skewless.serving.process.start_collector", lambda: None)
    monkeypatch.setattr(sys, "setswitchinterval", lambda _: None)


class ServedHere:
    """A server in the event loop of this thread, and who asks it from another one."""

    def __init__(self, place: Sandbox, config: ServerConfig, key: str, outage: Outage, calls: int = MOST) -> None:
        self.place, self.config, self.outage = place, config, outage
        self.refusals: list[StoreError] = []
        self.errors: list[BaseException] = []
        self._key, self._calls = key, calls
        self._ready, self._ended = threading.Event(), threading.Event()
        self._port = 0

    def run(self) -> None:
        """Serve until the asker is content; begin again if the server cannot start."""
        self.outage.spared = asker = threading.Thread(target=self._ask_until_content, daemon=True)
        asker.start()
        while not self._ended.is_set():
            try:
                asyncio.run(self._serve())
                self._ended.set()
            except StoreError as error:
                self.refusals.append(error)
                if self._ready.is_set():
                    self._ended.set()
        asker.join(PATIENCE_S)
        assert not asker.is_alive()
        assert self.errors == [], self.refusals

    async def _serve(self) -> None:
        self._loop, self._shutdown = asyncio.get_running_loop(), Shutdown()
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self._port = sock.getsockname()[1]
            await serve(self.config, sock, self._shutdown, self._ready.set, metrics=Metrics())

    def _ask_until_content(self) -> None:
        try:
            assert self._ready.wait(PATIENCE_S)
            self._predict()
            aliases = self.place.project.store.aliases
            champion = aliases.get(MODEL, "champion")
            aliases.move(MODEL, "champion", expect=champion, to=NEW, reason="test", now_us=time.time_ns() // 1_000)
            until(
                lambda: (self._predict() == NEW, self.outage.calls >= self._calls, self.outage.is_over) == (True,) * 3
            )
            aliases.move(MODEL, "champion", expect=NEW, to=str(champion), reason="test", now_us=time.time_ns() // 1_000)
            until(lambda: self._predict() == champion)
            new = add_key(self.place)
            until(lambda: self._predict(new) == champion)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.errors.append(error)
        finally:
            if not self._ended.is_set():
                self._loop.call_soon_threadsafe(self._shutdown.request)

    def _predict(self, new_key: str = "") -> str:
        """Predict, and return the version that has answered; a new key may be unknown."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
        try:
            body = json.dumps({"model": MODEL, "rows": ask(1)})
            connection.request("POST", "/predict", body, {"X-API-Key": new_key or self._key})
            reply = connection.getresponse()
            said = json.loads(reply.read())
        finally:
            connection.close()
        assert reply.status == 200 or new_key, said
        return str(said.get("version"))


def add_key(place: Sandbox) -> str:
    """Store a new key, and return it."""
    name = f"caller-{secrets.token_hex(4)}"
    secret = generate_secret(name)
    key = ApiKey(name=name, digest=hash_secret(secret.encode()), scopes=frozenset({"predict"}), created_us=1)
    KeyStore(place.project.state).add(key)
    return secret


@pytest.mark.parametrize("remembers", [False, True])
@pytest.mark.parametrize(
    "seed", [*range(FEW), *(pytest.param(n, marks=pytest.mark.soak) for n in range(FEW, 20 * FEW))]
)
def test_any_call_of_a_server_may_fail(
    shared: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seed: int, *, remembers: bool
) -> None:
    draw = random.Random(seed)
    outage = Outage.draw(draw, draw.choice((START, MOST)), faults=("refused", "reply lost", "slow"), slow_s=0.3)
    state, key = shared.project.state, add_key(shared)
    config = shared.project.server_config()
    settings = config.settings.model_copy(
        update={"auth": "required", "reload_seconds": 0.02, "log_flush_seconds": 0.05}
    )
    config = replace(config, settings=settings)
    if remembers:
        monkeypatch.setattr(state.database, "_memory", AnswerMemory(tmp_path / "answers.db"))
        ServedHere(shared, config, key, Outage(1, 0, "refused"), calls=0).run()  # whose answers are remembered
    served = ServedHere(shared, config, key, outage)
    with monkeypatch.context() as patch:
        outage.inject(patch, CALLS)
        served.run()
    assert len(served.refusals) <= (0 if remembers else outage.last - outage.first)
    assert prediction_spool(state).waiting() == []


@pytest.fixture
def _remembering(shared: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remember what is read, and ask the database again at once after an outage."""
    monkeypatch.setattr("skewless.infra.platform.storage.sqlite_database._AWAY_S", 0.0)
    monkeypatch.setattr(shared.project.state.database, "_memory", AnswerMemory(tmp_path / "answers.db"))


@pytest.mark.usefixtures("_remembering")
@pytest.mark.parametrize("first", range(1, 4))
def test_a_key_that_is_revoked_as_an_outage_begins_is_refused_after_it(
    shared: Sandbox, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    kept, revoked = add_key(shared), add_key(shared)
    keys = KeyStore(shared.project.state)
    access = KeyAccess(keys, lambda: 0)
    keys.revoke(revoked.split("_")[1])
    with monkeypatch.context() as patch:
        Outage(first, 1, "refused").inject(patch, {Database: ("execute",)})
        access.refresh()
    access.refresh()
    assert access.allow([(b"x-api-key", kept.encode())], "predict").name
    with pytest.raises(AccessError, match="is unknown"):
        access.allow([(b"x-api-key", revoked.encode())], "predict")


@pytest.mark.usefixtures("_remembering")
async def test_a_champion_of_the_begin_of_an_outage_is_served_after_it(
    shared: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, store = shared.project.state, shared.project.store
    reader = RedisReader(shared.project.redis_url)
    table = ModelTable(repo=shared.repo, state=state, store=store, online=reader)
    await table.load()
    champion = str(store.aliases.get(MODEL, "champion"))
    for first in range(1, 16):
        for before, after in ((champion, NEW), (NEW, champion)):
            store.aliases.move(MODEL, "champion", expect=before, to=after, reason="test", now_us=1)
            with monkeypatch.context() as patch:
                Outage(first, 1, "refused").inject(patch, {Database: ("execute",)})
                await table.refresh()
            await table.refresh()
            assert table.get(MODEL).version == after
    await reader.close()
