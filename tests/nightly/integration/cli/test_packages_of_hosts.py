"""A host trains, another one serves: with a bucket and a database in common, and also while both are down."""

from __future__ import annotations

import json
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.models.packages.package import open_package
from skewless.infra.models.packages.store import PackageStore
from skewless.project import Project
from tests.reliability.promotion_kills import promote_again
from tests.servers.node import Node
from tests.servers.object_storage import CREDENTIALS, ObjectStorageServer, running_object_storage
from tests.servers.prediction import PredictionServer
from tests.worlds.command_line import ROWS, done, run
from tests.worlds.waiting import eventually, until
from tools.postgres_server import PostgresServer

MODEL = "fraud"


@pytest.fixture
def training_host(
    new: Path, own_postgres: PostgresServer, valkey: Node, bucket: ObjectStorageServer, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A checkout that has trained a champion; another checkout shares its database, storage and online store."""
    config = new / "feature_store.yaml"
    config.write_text(re.sub(r"(?m)^project: .*$", "project: hosts", config.read_text()))
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SKEWLESS_DATABASE_URL", own_postgres.start())
    monkeypatch.setenv("SKEWLESS_STORAGE_URL", bucket.address("p"))
    monkeypatch.setenv("SKEWLESS_REDIS_URL", valkey.url)
    for verb in ("apply", "materialize", "train"):
        done(verb, "--repo", new)
    return new


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[ObjectStorageServer]:
    """A storage that the test may stop; then its objects are lost."""
    (tmp_path / "moto").mkdir()
    with running_object_storage(tmp_path / "moto") as server:
        yield server


# In make test, test_answer_memory.py has a process that starts without its database, and test_objects.py the copies of
# objects; test_model_traffic.py has a server whose database goes away.
@pytest.mark.soak
def test_a_server_of_another_host_serves_and_swaps_also_without_storage_and_database(
    training_host: Path,
    tmp_path: Path,
    own_postgres: PostgresServer,
    bucket: ObjectStorageServer,
    tell: Callable[[str], None],
) -> None:
    serving_host = Path(
        shutil.copytree(training_host, tmp_path / "serving", ignore=shutil.ignore_patterns(".skewless"))
    )
    body = json.dumps({"model": MODEL, "rows": ROWS[:1]})

    def served(server: PredictionServer) -> str:
        status, reply = server.post("/predict", body)
        assert status == 200, reply
        return str(reply["version"])

    server = PredictionServer.start(serving_host)
    assert served(server) == "000001"
    assert not (serving_host / ".skewless/signing_key.pem").exists()
    assert promote_again(store_of(training_host)) == "000002"
    until(lambda: served(server) == "000002")

    own_postgres.stop()
    eventually(lambda: server.get("/metrics"), lambda text: "\nskewless_database_down 1.0\n" in text)
    findings = run("doctor", "--repo", serving_host, "--json").body["checks"]
    assert [item["verdict"] for item in findings if item["name"] == "server"] == ["warn"]
    bucket.stop()
    assert served(server) == "000002"
    server.stop()
    began = time.monotonic()
    server = PredictionServer.start(serving_host)  # without both
    tell(f"a start without storage and database takes {time.monotonic() - began:.1f} s")
    assert served(server) == "000002"
    ready = json.loads(server.ask("GET", "/health/ready")[2])
    assert ready["ready"]
    assert ready["details"]["database"].startswith("is down for ")
    index = server.post("/v2/repository/index", "{}")[1]
    assert {entry["version"]: entry["state"] for entry in index} == {"000001": "UNAVAILABLE", "000002": "READY"}
    assert run("versions", MODEL, "--repo", serving_host).code == StoreError.exit_code
    status = run("status", "--repo", serving_host, "--json")
    assert (status.code, status.body["plan"], status.body["predictions"]) == (StoreError.exit_code, None, None)
    assert "cannot be used" in status.body["database"]
    assert status.body["server"]["problems"]["database"].startswith("is down for ")
    assert (status.body["online"]["reachable"], status.body["unshipped"] >= 1) == (True, True)
    text = run("status", "--repo", serving_host)
    assert text.code == StoreError.exit_code
    words = " ".join(text.stdout.split())
    assert re.search(r"database cannot be used: .*; plan, views, processes and models are unknown", words)
    assert re.search(r"predictions \d+ in the spool of this machine", words)

    own_postgres.start()
    bucket.start()
    store = store_of(training_host)
    until(lambda: _is_up(store))
    assert promote_again(store) == "000003"
    eventually(lambda: served(server), lambda version: version == "000003")
    server.stop()


def test_commands_say_what_is_unknown_without_the_database(unasked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_DATABASE_URL", "postgresql://127.0.0.1:1/none")
    assert run("versions", MODEL, "--repo", unasked).code == StoreError.exit_code
    status = run("status", "--repo", unasked, "--json")
    assert (status.code, status.body["plan"], status.body["predictions"]) == (StoreError.exit_code, None, None)
    assert "cannot be used" in status.body["database"]
    text = run("status", "--repo", unasked)
    assert text.code == StoreError.exit_code
    words = " ".join(text.stdout.split())
    assert re.search(r"database cannot be used: .*; plan, views, processes and models are unknown", words)
    assert re.search(r"predictions \d+ in the spool of this machine", words)


def store_of(repo: Path) -> PackageStore:
    """Return the packages of a checkout."""
    return Project(repo).store


def _is_up(store: PackageStore) -> bool:
    try:
        return bool(store.packages.list_models())
    except StoreError:
        return False  # a connection from before


@pytest.mark.usefixtures("bucket_url")
def test_packages_move_by_a_backup_into_buckets_and_back(
    unasked: Path,
    tmp_path: Path,
    postgres_url: str,
    object_server: ObjectStorageServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = unasked
    for place in ("bucket", "another bucket", "folder"):
        done("backup", tmp_path / f"{place}.backup", "--repo", source)
        target = tmp_path / place
        shutil.copytree(unasked, target, ignore=shutil.ignore_patterns(".skewless"))
        name = uuid.uuid4().hex
        is_cloud = place != "folder"
        addresses = {
            "SKEWLESS_STORAGE_URL": object_server.address(name),
            "SKEWLESS_DATABASE_URL": f"{postgres_url}{'&' if '?' in postgres_url else '?'}schema=test_{name}",
        }
        for variable, address in addresses.items():
            monkeypatch.setenv(variable, address) if is_cloud else monkeypatch.delenv(variable)
        done("restore", tmp_path / f"{place}.backup", "--repo", target)
        packages = target / ".skewless/packages"
        if is_cloud:
            shutil.rmtree(packages)  # as on another host
        with Project(target) as project:
            assert open_package(project.store, MODEL, "000001").version == "000001"
        if is_cloud:
            shutil.rmtree(packages)  # the next backup contains it all the same
        source = target
