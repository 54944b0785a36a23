"""The doctor's checks of databases and storages fail on real faults, and leave nothing behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from skewless.contract.settings import Settings
from skewless.contract.windows.view import EventSource
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.objects import PROBES, FolderStorage, find_probes
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.health.checkup import deep, peers
from skewless.operations.health.checkup.machine import check_url
from skewless_cloud.storage import CloudStorage, parse_address
from skewless_kafka import connector
from skewless_postgres.database import PostgresDatabase
from tests.nightly.deploy.doctor_lines import judged, lines
from tests.servers.kafka import kafka_broker
from tests.servers.node import Node
from tests.servers.object_storage import CREDENTIALS, ObjectStorageServer


def test_old_servers_fail(tmp_path: Path, valkey: Node, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_OLDEST", {"valkey": (99, 0)})
    monkeypatch.setattr(peers, "_OLDEST_POSTGRES", 990_000)
    monkeypatch.setattr(peers, "_OLDEST_SQLITE", (99, 0))
    found = {
        finding.name: finding
        for finding in peers.check_redis(ProjectState(tmp_path), Settings(redis_url=valkey.url), None)
    }
    assert (found["redis version"].verdict, found["redis version"].fix) == ("fail", "install valkey 99.0 or later")
    with closing(own_schema(postgres_url)) as database:
        assert judged(peers.check_database(database, 100.0))["database version"] == "fail"
    state = ProjectState(tmp_path)
    state.database.execute("SELECT 1")
    assert judged(peers.check_database(state.database, 100.0))["database version"] == "fail"


def own_schema(url: str, user: str = "") -> Database:
    """Return a database in a new schema; with a user, one of this name may connect and nothing else."""
    schema = f"doctor_{uuid.uuid4().hex}"
    database = PostgresDatabase(f"{url}{'&' if '?' in url else '?'}schema={schema}")
    database.execute("SELECT 1")
    if not user:
        return database
    database.execute(f"CREATE ROLE {user} LOGIN")
    database.execute(f'GRANT USAGE ON SCHEMA "{schema}" TO {user}')
    database.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA "{schema}" TO {user}')
    database.close()
    return PostgresDatabase(f"{url.replace('//postgres:', f'//{user}:')}{'&' if '?' in url else '?'}schema={schema}")


def test_a_role_that_may_only_read_fails(postgres_url: str) -> None:
    user = f"reader_{uuid.uuid4().hex[:8]}"
    with closing(own_schema(postgres_url, user)) as database:
        found = lines(peers.check_database(database, 100.0))
    assert found["database rights"][0] == "fail"
    assert "INSERT on documents" in found["database rights"][1]
    with closing(own_schema(postgres_url)) as database:
        found = lines(peers.check_database(database, 1_000.0))
        assert {verdict for verdict, _ in found.values()} == {"ok"}, found
        assert database.query("SELECT count(*) FROM documents") == [(0,)]


def test_a_database_that_is_away_fails(tmp_path: Path) -> None:
    state = ProjectState(tmp_path, "postgresql://nobody@127.0.0.1:1/none")
    assert judged(deep.check_stores(state, 100.0)) == {"database": "fail", "storage round trip": "ok"}


def test_a_wrong_clock_is_found_against_every_peer(
    tmp_path: Path, valkey: Node, postgres_url: str, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + 30_000_000_000)
    assert judged(check_url(valkey.url, 100.0))["clock"] == "warn"
    with closing(own_schema(postgres_url)) as database:
        verdict, detail = lines(peers.check_database(database, 100.0))["database clock"]
    assert verdict == "warn"
    assert re.search(r" by (29,9|30,0)\d\d ms", detail)
    storage = CloudStorage(parse_address(bucket_url), tmp_path, 10**9)
    found = lines(peers.check_storage(storage, is_remote=True, limit_ms=100.0))
    assert {name: verdict for name, (verdict, _) in found.items()} == {
        "storage round trip": "ok",
        "storage clock": "warn",
    }


_MAKE_READER = """
import boto3, json, sys
iam = boto3.client("iam", endpoint_url=sys.argv[1], region_name="us-east-1")
iam.create_user(UserName="reader")
rule = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
key = iam.create_access_key(UserName="reader")["AccessKey"]
print(json.dumps([key["AccessKeyId"], key["SecretAccessKey"]]))
"""


@pytest.fixture
def read_only_bucket(object_server: ObjectStorageServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a prefix whose objects the credentials of the environment may only read."""
    python = f"{sys.prefix}-clients/bin/python"
    command = [python, "-c", _MAKE_READER, object_server.endpoint]
    done = subprocess.run(command, env={**os.environ, **CREDENTIALS}, capture_output=True, text=True, check=True)
    for name, value in zip(CREDENTIALS, json.loads(done.stdout), strict=True):
        monkeypatch.setenv(name, value)
    ask_for_rights(object_server, "0")
    yield object_server.address(uuid.uuid4().hex)
    ask_for_rights(object_server, "inf")


def ask_for_rights(server: ObjectStorageServer, after: str) -> None:
    """Let moto check the rights of its callers after some actions."""
    with closing(HTTPConnection(server.endpoint.removeprefix("http://"), timeout=20)) as connection:
        connection.request("POST", "/moto-api/reset-auth", after)
        assert connection.getresponse().status == 200


def test_a_bucket_without_the_right_to_write_fails(read_only_bucket: str, tmp_path: Path) -> None:
    storage = CloudStorage(parse_address(read_only_bucket), tmp_path, 10**9)
    (finding,) = peers.check_storage(storage, is_remote=True, limit_ms=100.0)
    assert finding.verdict == "fail"
    assert finding.detail.startswith("an object cannot be written: object storage s3://features/")
    assert "403" in finding.detail
    assert "may read, write, list and delete" in (finding.fix or "")


def test_what_a_killed_doctor_has_left_is_deleted_by_the_next(
    bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = FolderStorage(tmp_path / "folder")
    for storage in (folder, CloudStorage(parse_address(bucket_url), tmp_path / "copies", 10**9)):
        with monkeypatch.context() as patch:
            patch.setattr(storage, "delete", lambda _: killed())
            with pytest.raises(KeyboardInterrupt):
                list(peers.check_storage(storage, is_remote=False, limit_ms=1.0))
        (left,) = find_probes(storage, 2**62)
        assert left.startswith(PROBES)
        list(peers.check_storage(storage, is_remote=False, limit_ms=1.0))
        assert find_probes(storage, 2**62) == [left]  # it may be that of another doctor, which still runs
        with monkeypatch.context() as patch:
            patch.setattr(peers, "_OLD_US", -10_000_000)
            found = lines(peers.check_storage(storage, is_remote=False, limit_ms=1.0))
        assert "deleted" in found["storage round trip"][1]
        assert find_probes(storage, 2**62) == []


def killed() -> None:
    raise KeyboardInterrupt


def test_a_topic_that_is_missing_and_a_broker_that_is_away_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector, "_TIMEOUT_S", 2.0)
    with kafka_broker(tmp_path) as broker:
        broker.make("payments", 3)
        source = EventSource(
            name="payments",
            kind="kafka",
            event_column="t",
            columns=(),
            topic="payments",
            servers=broker.bootstrap,
            earliest_us=0,
            latest_us=2**62,
        )
        plan: Any = SimpleNamespace(sources=(source,))
        (finding,) = peers.check_streams(plan, Settings())
        assert (finding.name, finding.verdict) == ("kafka payments", "ok")
        assert finding.detail == "3 partitions on 1 broker"
        plan.sources = (replace(source, topic="nowhere"),)
        (finding,) = peers.check_streams(plan, Settings())
        assert (finding.verdict, "'nowhere'" in finding.detail) == ("fail", True)
        plan.sources = (replace(source, kind="push"),)
        assert list(peers.check_streams(plan, Settings())) == []
    plan.sources = (source,)
    (finding,) = peers.check_streams(plan, Settings())
    assert finding.verdict == "fail"
    (finding,) = peers.check_streams(plan, Settings(kafka="[]"))
    assert (finding.verdict, "setting 'kafka'" in finding.detail) == ("fail", True)
