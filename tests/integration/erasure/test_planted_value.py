"""A value that came through every door is nowhere after an erasure, but where the receipt says."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from skewless.contract.errors import StoreError
from skewless.infra.models.rollout.entity_lists import EntityLists
from skewless.infra.platform.storage.project_state import ANSWERS_FILE, DATABASE_FILE
from skewless.infra.platform.storage.sqlite_database import AnswerMemory, SqliteDatabase
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.operations.state.housekeeping import run_housekeeping
from skewless.project import Project
from tests.worlds.erasure_doors import BY_DESIGN, find_files, find_keys, plant, run_command, send
from tests.worlds.erasures import ERASED, NOW, delete_in_sources, fill, write_repo

ENTITY = {"user": ERASED}


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Path]:
    """A project with a private server."""
    repo = write_repo(tmp_path / "p", "p", settings="stream_partitions: 2\n")
    yield repo
    PrivateServer(repo / ".skewless").stop()


def open_private(repo: Path) -> Any:  # noqa: ANN401 - redis-py's clients are untyped
    """Return a client of the private server, whose files do not compress values from now on."""
    client: Any = redis.Redis.from_url(PrivateServer(repo / ".skewless").ensure())
    assert client.config_get("slowlog-*")["slowlog-log-slower-than"] == "-1"  # it would remember keys
    client.config_set("rdbcompression", "no")
    return client


def test_the_value_is_nowhere(repo: Path) -> None:
    client = open_private(repo)
    plant(repo)
    delete_in_sources(repo)
    before = find_files(repo) | find_keys(client, "sk:p:")
    for part in (
        *("log/batch", "log/events", "predictions/", "outcomes/", "spool/predictions/", "redis/appendonlydir"),
        *(DATABASE_FILE, *BY_DESIGN, "sk:p:events:"),
    ):
        assert any(part in name for name in before), (part, before)
    with Project(repo) as project:
        send(project, "w", 4)  # they wait for the workers
        told = project.erase(ENTITY, dry_run=True)
        receipt = project.erase(ENTITY)
        assert (told.messages, told.predictions, told.outcomes) == (receipt.messages, 2 + 2, 2)  # logged, and shipped
        assert receipt.messages == 3 + 2 + 2  # accepted, rejected, unread
        # This process has read the logs, so that their files wait for it.
        assert not [name for name in find_files(repo / ".skewless") if name.split("/")[0] not in {"log", *BY_DESIGN}]
        assert find_keys(client, "sk:p:") == set()
        project.stream(until_idle=True)
        assert project.parity(sample=100).ok
        assert project.erase(ENTITY).messages == 0
    run_command(repo, "housekeeping")
    assert find_keys(client, "sk:p:") == set()
    left = {name.removeprefix(".skewless/").split("/")[0] for name in find_files(repo)}
    assert left == set(BY_DESIGN)
    for word in BY_DESIGN.values():
        assert any(word in each for each in receipt.not_covered), word


def test_former_states_leave_the_file_of_a_private_server(repo: Path) -> None:
    with Project(repo) as project:
        fill(project)
        open_private(repo)
        delete_in_sources(repo)
        project.erase(ENTITY)
        former = f"sk:p:{project.applied.plan.windows[0].hash}.1:".encode()
        assert find_files(repo / ".skewless/redis", former)
        project.clock.set(NOW + 600_000_000)  # type: ignore[attr-defined]
        assert run_housekeeping(project).retired == 2
        assert find_files(repo / ".skewless/redis", former) == set()


def test_a_server_that_remembers_lists_forgets_the_value(tmp_path: Path) -> None:
    repo = write_repo(tmp_path / "p", f"p_{uuid.uuid4().hex[:8]}")
    with Project(repo) as project:
        lists, database = project.lists, project.state.database
        # So many that SQLite frees pages.
        lists.set("blocked", [*(f"{ERASED}{i}" for i in range(5_000)), "bob"], reason="fraud")
        memory = AnswerMemory(tmp_path / "answers" / ANSWERS_FILE)
        database.remember(memory)
        entity_lists = EntityLists(database)
        known = entity_lists.refresh(["blocked"], {})
        assert find_files(tmp_path / "answers")
        elsewhere = SqliteDatabase(project.state / DATABASE_FILE)
        EntityLists(elsewhere).erase("blocked", lambda value: value.startswith(ERASED), now_us=NOW)
        assert entity_lists.refresh(["blocked"], known)["blocked"] == (2, frozenset(["bob"]))
        memory.close()
        elsewhere.close()
        assert find_files(tmp_path / "answers") == set()


def test_a_value_that_an_older_release_deleted_leaves_the_database(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_FILE
    database = SqliteDatabase(path)
    database.execute("CREATE TABLE rows (body TEXT)")
    database.execute("INSERT INTO rows VALUES (?)", ERASED)
    database.execute("PRAGMA secure_delete=OFF")
    database.execute("DELETE FROM rows")
    assert find_files(tmp_path)
    database.scrub()
    assert find_files(tmp_path) == set()
    database.close()


def test_a_reader_that_keeps_the_log_of_writes_is_told(tmp_path: Path) -> None:
    database, reader = (SqliteDatabase(tmp_path / DATABASE_FILE, busy_s=0.1) for _ in range(2))
    database.execute("CREATE TABLE rows (body TEXT)")
    with reader.snapshot():
        assert reader.query("SELECT * FROM rows") == []
        database.execute("INSERT INTO rows VALUES ('new')")
        with pytest.raises(StoreError, match=r"was read for 0\.1 s"):
            database.scrub()
    database.scrub()
    assert (tmp_path / f"{DATABASE_FILE}-wal").stat().st_size == 0
    for each in (database, reader):
        each.close()
