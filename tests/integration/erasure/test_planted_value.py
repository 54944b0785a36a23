"""A value that came through every door is nowhere after an erasure: memory and files of Redis, database, storage."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from skewless.infra.ingest.streams.redis_link import EventKeys, parse_position
from skewless.infra.models.rollout.entity_lists import EntityLists
from skewless.infra.platform.storage.project_state import ANSWERS_FILE, DATABASE_FILE
from skewless.infra.platform.storage.sqlite_database import AnswerMemory, SqliteDatabase
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.operations.state.housekeeping import run_housekeeping
from skewless.project import Project
from tests.servers.prediction import ROOT
from tests.worlds.erasures import ERASED, NOW, SHOPS, delete_in_sources, fill, write_repo

ENTITY = {"user": ERASED}
PLANT = """\
import sys
from pathlib import Path
from skewless.project import Project
from tests.integration.erasure import test_planted_value
with Project(sys.argv[1]) as project:
    test_planted_value.plant(project)
"""


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Path]:
    """A project with a private server, whose files do not compress values."""
    repo = write_repo(tmp_path / "p", "p")
    yield repo
    PrivateServer(repo / ".skewless").stop()


def plant(project: Project) -> None:
    """Bring the value through tables, events, requests, outcomes, lists and interrupted commands."""
    fill(project)
    project.train("both")
    send(project, "s", 6)
    messages = project.streams.sender(project.streams.plan.sources[0])
    messages.send([f"no JSON, and yet {ERASED}".encode()])
    messages.close()
    project.stream(until_idle=True)
    replies = project.predict("both", [{"user": user, "shop": SHOPS[0]} for user in (ERASED, "ann")])
    file = project.repo / "outcomes.csv"
    file.write_text(f"prediction_id,label\n{replies['id'][0].as_py()},1\n")
    project.feedback(file)
    file.unlink()
    project.lists.set("blocked", [ERASED, "bob"], reason="fraud")


def send(project: Project, prefix: str, n: int) -> None:
    """Send events of the entity and of others by turns."""
    sender = project.streams.sender(project.streams.plan.sources[0])
    rows = [
        {"visit": f"{prefix}{i}", "user": ERASED if i % 2 else "bob", "shop": SHOPS[0], "amount": 1.5, "at": NOW - i}
        for i in range(n)
    ]
    sender.send([json.dumps(row).encode() for row in rows], ["one partition"] * n)
    sender.close()


def places(folder: Path, client: Any, text: bytes = ERASED.encode()) -> list[str]:  # noqa: ANN401 - untyped
    """Return the files, and the keys of Redis, that have a text."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    found = [path.relative_to(folder).as_posix() for path in files if text in path.read_bytes()]
    keys = [] if client is None else sorted(client.scan_iter(count=10_000))
    return found + [key.decode() for key in keys if text in key or text in (client.dump(key) or b"")]


def test_the_value_is_nowhere(repo: Path) -> None:
    state = repo / ".skewless"
    client: Any = redis.Redis.from_url(PrivateServer(state).ensure())
    client.config_set("rdbcompression", "no")
    subprocess.run([sys.executable, "-c", PLANT, str(repo)], cwd=ROOT, check=True)
    delete_in_sources(repo)
    before = places(state, client)
    for part in ("log/batch", "log/events", "predictions/", "redis/appendonlydir", DATABASE_FILE, "sk:p:events:"):
        assert any(name.startswith(part) for name in before), (part, before)
    with Project(repo) as project:
        send(project, "w", 4)  # they wait for the workers
        told = project.erase(ENTITY, dry_run=True)
        receipt = project.erase(ENTITY)
        assert (told.messages, told.predictions, told.outcomes) == (receipt.messages, 1, 1)
        assert receipt.messages == 3 + 1 + 2  # accepted, rejected, unread
        assert {name for name in places(state, client) if not name.startswith("log/")} == set()
        project.stream(until_idle=True)
        assert project.parity(sample=100).ok
        assert project.erase(ENTITY).messages == 0
    program = "from skewless.cli import main; main()"
    subprocess.run([sys.executable, "-c", program, "housekeeping", "--repo", str(repo)], cwd=ROOT, check=True)
    assert places(state, client) == []


def test_readers_of_a_stream_notice_no_difference(repo: Path) -> None:
    with Project(repo) as project:
        fill(project)
        client: Any = redis.Redis.from_url(project.redis_url)
        keys = EventKeys(project="p", source="visits")
        send(project, "s", 6)
        project.stream(until_idle=True)
        send(project, "w", 5)
        (index,) = (i for i in range(project.settings.stream_partitions) if client.xlen(keys.stream(i)))
        stream = keys.stream(index)
        before, facts, epoch = client.xrange(stream), client.xinfo_stream(stream), client.get(keys.epoch(index))
        delete_in_sources(repo)
        assert project.erase(ENTITY).messages == 5
        kept = [entry for entry in before[6:] if json.loads(entry[1][b"e"])["user"] == "bob"]
        assert client.xrange(stream) == kept
        after = client.xinfo_stream(stream)
        assert (after["last-generated-id"], after["entries-added"]) == (facts["last-generated-id"], 9)
        assert client.get(keys.epoch(index)) == epoch
        (counts,) = project.stream(until_idle=True)
        assert (counts.read, counts.accepted, counts.lag) == (3, 3, 0)
        send(project, "n", 1)
        assert parse_position(client.xrange(stream)[-1][0]) > parse_position(before[-1][0])


def test_former_states_leave_the_file_of_a_private_server(repo: Path) -> None:
    with Project(repo) as project:
        fill(project)
        client: Any = redis.Redis.from_url(project.redis_url)
        client.config_set("rdbcompression", "no")
        delete_in_sources(repo)
        project.erase(ENTITY)
        former = f"sk:p:{project.applied.plan.windows[0].hash}.1:".encode()
        assert places(repo / ".skewless/redis", client, former)
        project.clock.set(NOW + 600_000_000)  # type: ignore[attr-defined]
        assert run_housekeeping(project).retired == 2
        assert places(repo / ".skewless/redis", client, former) == []


def test_a_server_that_remembers_lists_forgets_the_value(tmp_path: Path) -> None:
    repo = write_repo(tmp_path / "p", f"p_{uuid.uuid4().hex[:8]}")
    with Project(repo) as project:
        lists, database = project.lists, project.state.database
        lists.set("blocked", [ERASED, "bob"], reason="fraud")
        memory = AnswerMemory(tmp_path / "answers" / ANSWERS_FILE)
        database.remember(memory)
        entity_lists = EntityLists(database)
        known = entity_lists.refresh(["blocked"], {})
        assert places(tmp_path / "answers", None)
        elsewhere = SqliteDatabase(project.state / DATABASE_FILE)
        EntityLists(elsewhere).erase("blocked", lambda value: value == ERASED, now_us=NOW)
        assert entity_lists.refresh(["blocked"], known)["blocked"] == (2, frozenset(["bob"]))
        memory.close()
        elsewhere.close()
        assert places(tmp_path / "answers", None) == []
