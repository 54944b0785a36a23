"""A process that remembers its reads goes on while its database is down, and starts again without it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from skewless.contract.errors import StoreError
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.sqlite_database import AnswerMemory
from tools.postgres_server import PostgresServer

_READER = """
import json, sys
from pathlib import Path
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
state = ProjectState(Path(sys.argv[1]), sys.argv[2])
state.remember_reads()
print(json.dumps([Documents(state.database, "policy").get(name) for name in ("a", "b")]))
"""


def test_reads_go_on_without_the_database_and_after_a_restart(own_postgres: PostgresServer, tmp_path: Path) -> None:
    state = ProjectState(tmp_path, own_postgres.start())
    state.remember_reads()
    policies = Documents(state.database, "policy")
    policies.put("a", {"champion": "000001"})
    assert (policies.get("a"), policies.get("b"), policies.revision("a")) == ({"champion": "000001"}, None, 1)

    own_postgres.stop()
    with capture_logs() as logs:
        for _ in range(3):
            assert (policies.get("a"), policies.get("b"), policies.revision("a")) == ({"champion": "000001"}, None, 1)
    assert [entry["event"] for entry in logs] == ["database_down"]
    with pytest.raises(StoreError):
        policies.get("never read")
    with pytest.raises(StoreError):
        policies.put("a", {})
    with pytest.raises(StoreError):
        Leases(state.database).acquire("job")  # decides about a write: never from memory

    url = state.database_url or ""
    restarted = subprocess.run(
        [sys.executable, "-c", _READER, str(tmp_path), url], capture_output=True, text=True, check=True
    )
    assert json.loads(restarted.stdout.splitlines()[-1]) == [{"champion": "000001"}, None]

    own_postgres.start()
    deadline = time.monotonic() + 30
    is_up = False
    while not is_up and time.monotonic() < deadline:
        try:
            is_up = policies.get("never read") is None
        except StoreError:
            time.sleep(0.1)
    assert is_up
    policies.put("a", {"champion": "000002"})
    assert policies.get("a") == {"champion": "000002"}


class _Clock:
    """A clock that a test sets."""

    at_s = 100.0

    def __call__(self) -> float:
        return self.at_s


def test_a_server_that_is_away_is_not_asked_again_for_a_second(tmp_path: Path) -> None:
    clock, asked = _Clock(), [0]
    memory = AnswerMemory(tmp_path / "answers.db", clock)
    assert memory.read("q", lambda: [("x", 1, None, 0.5)]) == [("x", 1, None, 0.5)]

    def fail() -> list[tuple[object, ...]]:
        asked[0] += 1
        raise StoreError("database", "is down", fix="start it")

    for _ in range(5):
        assert memory.read("q", fail) == [("x", 1, None, 0.5)]
    assert asked == [1]
    clock.at_s += 1.01
    memory.read("q", fail)
    assert asked == [2]
    clock.at_s += 1.01
    assert memory.read("q", lambda: [("y",)]) == [("y",)]
    memory.close()


def test_the_answers_that_were_not_read_for_the_longest_time_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skewless.infra.platform.storage.sqlite_database._MOST_ANSWERS", 3)

    def fail() -> list[tuple[object, ...]]:
        raise StoreError("database", "is down", fix="start it")

    memory = AnswerMemory(tmp_path / "answers.db")
    for number in range(9):
        memory.read("often", lambda: [("policy",)])
        memory.read(f"once {number}", lambda: [(1,)])
    memory.close()
    restarted = AnswerMemory(tmp_path / "answers.db")
    assert restarted.read("often", fail) == [("policy",)]
    assert restarted.read("once 8", fail) == [(1,)]
    with pytest.raises(StoreError):
        restarted.read("once 0", fail)
    restarted.close()


@pytest.mark.parametrize("content", [b"", b"rubbish" * 1_000, b"SQLite format 3\0" + b"\0" * 4_000])
def test_a_corrupt_memory_costs_nothing_while_the_database_is_there(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "answers.db").write_bytes(content)
    memory = AnswerMemory(tmp_path / "answers.db")
    assert memory.read("q", lambda: [(1,)]) == [(1,)]
    memory.close()


def test_reads_in_a_transaction_are_current(project_database: Database, tmp_path: Path) -> None:
    memory = AnswerMemory(tmp_path / "answers" / "answers.db")
    project_database.remember(memory)
    documents = Documents(project_database, "policy")
    documents.put("a", 1)
    assert documents.get("a") == 1
    with documents.edit("a", 0) as _:
        assert documents.get("a") == 1
    memory.close()
