"""The failures of docs/on-call.md that need a database and a storage: both are down, and come back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from skewless.contract.clock import OffsetClock
from tests.nightly.deploy.on_call import OnCall
from tests.nightly.servers.proxy import Proxy, proxy_to
from tests.servers.node import Node
from tests.servers.object_storage import CREDENTIALS, ObjectStorageServer, object_address
from tests.servers.prediction import PredictionServer
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.command_line import done
from tests.worlds.trained import MODEL, NOW, ask, copy_project, move_project
from tools.postgres_server import PostgresServer

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]


@pytest.fixture
def storage_proxy(object_server: ObjectStorageServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """What stands between a project and its storage."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with proxy_to(int(object_server.endpoint.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture
def shared_on_call(
    trained: Path, tmp_path: Path, valkey: Node, own_postgres: PostgresServer, storage_proxy: Proxy
) -> Iterator[OnCall]:
    """A server whose project has its state in PostgreSQL and a bucket."""
    endpoint = f"http://127.0.0.1:{storage_proxy.port}"
    addresses = ProjectAddresses(
        database_url=own_postgres.start(), storage_url=object_address(endpoint, uuid.uuid4().hex)
    )
    repo = move_project(copy_project(trained, tmp_path / "p"), addresses)
    with (repo / "skewless.yaml").open("a") as file:
        file.write(f"\nclock: file:clock\nredis_url: {valkey.url}\nport: 0\nthreads: 1\n")
    OffsetClock.create(repo / "clock").set(NOW)
    done("materialize", "--repo", repo)
    server = PredictionServer.start(repo)
    yield OnCall(repo=repo, server=server)
    server.stop()


def predict(on_call: OnCall) -> None:
    assert on_call.server is not None
    body = orjson.dumps({"model": MODEL, "rows": ask(1)})
    assert on_call.server.ask("POST", "/predict", body)[0] == 200


def test_the_database_is_away(shared_on_call: OnCall, own_postgres: PostgresServer) -> None:
    title = "3. The database is down"
    own_postgres.stop()
    predict(shared_on_call)
    shared_on_call.sees(title)
    predict(shared_on_call)
    own_postgres.start()
    shared_on_call.is_over(title)


def test_the_storage_is_away(shared_on_call: OnCall, storage_proxy: Proxy) -> None:
    title = "4. The storage is down"
    storage_proxy.kill()
    predict(shared_on_call)
    shared_on_call.sees(title)
    storage_proxy.start()
    shared_on_call.is_over(title)
