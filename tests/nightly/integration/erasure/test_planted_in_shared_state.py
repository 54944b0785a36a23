"""A value that came through every door into PostgreSQL, a bucket and another Redis is nowhere after an erasure."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import redis

from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.project import Project
from skewless_postgres.database import PostgresDatabase
from tests.worlds.erasure_doors import BY_DESIGN, find_files, find_keys, find_objects, plant, run_command, send
from tests.worlds.erasures import ERASED, delete_in_sources, write_repo
from tools.postgres_server import PostgresServer


def test_the_value_is_nowhere(tmp_path: Path, server_url: str, bucket_url: str, own_postgres: PostgresServer) -> None:
    database_url, name = own_postgres.start(), f"p_{uuid.uuid4().hex[:8]}"
    settings = f"redis_url: {server_url}\ndatabase_url: '{database_url}'\nstorage_url: '{bucket_url}'\n"
    repo = write_repo(tmp_path / "p", name, settings=f"{settings}stream_partitions: 2\n")
    client: Any = redis.Redis.from_url(server_url)
    plant(repo)
    delete_in_sources(repo)
    with Project(repo) as project:
        before = find_files(repo) | find_objects(project) | find_keys(client, f"sk:{name}:")
        for part in ("log/batch", "log/events", "predictions/", "outcomes/", "spool/", "cache/", *BY_DESIGN, "sk:"):
            assert any(part in place for place in before), (part, before)
        assert find_in_postgres(project.state.database, own_postgres)
        send(project, "w", 4)
        receipt = project.erase({"user": ERASED})
        assert (receipt.messages, receipt.predictions, receipt.outcomes, receipt.lists) == (3 + 2 + 2, 2 + 2, 2, 1)
        assert find_keys(client, f"sk:{name}:") == set()
        assert find_in_postgres(project.state.database, own_postgres) == set()
    run_command(repo, "housekeeping")
    with Project(repo) as project:
        assert find_objects(project) == set()
    left = {place.removeprefix(".skewless/").split("/")[0] for place in find_files(repo)}
    assert left == set(BY_DESIGN)
    for word in (*BY_DESIGN.values(), "BGREWRITEAOF", "write-ahead log", "old versions of objects", "answers.db"):
        assert any(word in each for each in receipt.not_covered), word


def test_deleted_values_leave_the_pages_of_postgres(own_postgres: PostgresServer) -> None:
    database = PostgresDatabase(own_postgres.start())
    documents, records = Documents(database, "kind"), Records(database, "kind")
    for number in range(100):
        documents.put(f"{number}", f"{ERASED} {number}")
        records.append("name", number + 1, f"{ERASED} {number}")
    documents.put("last", "stays")
    database.execute("DELETE FROM documents WHERE name <> 'last'")
    database.execute("DELETE FROM records WHERE number < 100")
    records.replace("name", 100, "stays")
    assert find_in_postgres(database, own_postgres)
    database.scrub()
    assert find_in_postgres(database, own_postgres) == set()
    assert (documents.get("last"), records.read("name", 100)) == ("stays", "stays")
    database.close()


def find_in_postgres(database: Database, server: PostgresServer) -> set[str]:
    """Return the files of a database that have the value, without the write-ahead log, after they are written."""
    database.execute("CHECKPOINT")
    return {name for name in find_files(server._folder) if not name.startswith("pg_wal/")}
