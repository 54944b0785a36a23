"""The database, its documents and records behave alike in SQLite and PostgreSQL, also with many writers."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoints
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.errors import ConflictError, DefinitionError, StoreError
from skewless.contract.settings import Settings
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.infra.platform.storage.project_state import ProjectState, open_database, open_storage
from skewless.infra.platform.storage.schema import STEPS
from skewless.infra.platform.storage.sqlite_database import SqliteDatabase
from tests.servers.postgres import ON_SQLITE, address_of

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", ["plain", "", "with / and ' and \"", "späť\U0001f600", "x" * 5_000, "a?b%s%%c"])
def test_documents_keep_any_name_and_any_json(project_database: Database, name: str) -> None:
    documents = Documents(project_database, "verdict")
    assert documents.get(name) is None
    assert documents.revision(name) == 0
    body = {"zero": "\0", "half": 0.1, "big": 2**70, "text": "\ud7ff?%s%", "none": None, "list": [1, [2]]}
    documents.put(name, body)
    assert documents.get(name) == body
    assert not documents.create(name, {})
    assert documents.get(name) == body
    documents.put(name, [])
    assert (documents.get(name), documents.revision(name)) == ([], 2)
    assert Documents(project_database, "other").get(name) is None
    assert documents.list_all() == {name: []}
    assert documents.delete(name)
    assert not documents.delete(name)


@given(body=_JSON)
def test_any_json_value_returns_as_it_was(body: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    documents = Documents(open_database(f"sqlite:///{tmp_path_factory.getbasetemp() / 'json.db'}"), "any")
    documents.put("x", body)
    assert documents.get("x") == json.loads(json.dumps(body))


def test_a_number_that_json_has_not_is_refused(project_database: Database) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Documents(project_database, "verdict").put("x", float("nan"))


def test_records_are_numbered_and_never_replaced(project_database: Database) -> None:
    records = Records(project_database, "move")
    assert records.latest("late") is None
    assert [records.add("late", {"to": i}) for i in range(12)] == list(range(1, 13))
    with pytest.raises(ConflictError, match="move 'late': was changed by another process: record 12 exists"):
        records.append("late", 12, {"to": "other"})
    assert records.latest("late") == (12, {"to": 11})
    assert [number for number, _ in records.read_latest_first("late")] == list(range(12, 0, -1))
    assert (records.read("late", 3), records.read("late", 99)) == ({"to": 2}, None)
    assert records.names() == ["late"]


def test_a_conflict_inside_a_transaction_leaves_the_transaction_usable(project_database: Database) -> None:
    records = Records(project_database, "move")
    records.append("late", 1, {})
    with project_database.transaction():
        with pytest.raises(ConflictError):
            records.append("late", 1, {})
        records.append("late", 2, {})
    assert records.latest_number("late") == 2


def test_a_failed_transaction_writes_nothing(project_database: Database) -> None:
    documents = Documents(project_database, "verdict")
    documents.put("a", 1)

    def fail() -> None:
        with project_database.transaction():
            documents.put("a", 2)
            with documents.edit("b", {}) as body:  # joins the outer transaction
                body["x"] = 1
            raise KeyError("any")

    with pytest.raises(KeyError):
        fail()
    assert documents.list_all() == {"a": 1}
    documents.put("a", 3)  # the connection is still usable
    assert documents.get("a") == 3


def test_edits_of_many_threads_are_all_kept(project_database: Database) -> None:
    documents = Documents(project_database, "counter")

    def count(i: int) -> None:
        with documents.edit("n", {"total": 0, "by": []}) as body:
            body["total"] += 1
            body["by"].append(i)
        project_database.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(80)))
    body = documents.get("n")
    assert body is not None
    assert (body["total"], sorted(body["by"])) == (80, list(range(80)))
    assert documents.revision("n") == 80


def _add_records(url: str, name: str, count: int) -> None:
    records = Records(open_database(url), "move")
    for _ in range(count):
        records.add(name, {"pid": os.getpid()})


@ON_SQLITE
def test_processes_share_one_series_of_numbers(project_database: Database) -> None:
    processes = [
        multiprocessing.get_context("spawn").Process(target=_add_records, args=(address_of(project_database), "n", 50))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    numbers = [number for number, _ in Records(project_database, "move").read_latest_first("n")]
    assert numbers == list(range(100, 0, -1))


def test_a_killed_writer_loses_no_acknowledged_write(project_database: Database) -> None:
    """Kill writers at random times: what they reported is stored, and the next writer is not blocked."""
    program = (
        "import sys\n"
        "from skewless.infra.platform.storage.project_state import open_database\n"
        "from skewless.infra.platform.storage.documents import Records\n"
        "records = Records(open_database(sys.argv[1]), 'move')\n"
        "while True: print(records.add('n', {}), flush=True)\n"
    )
    reported = 0
    for delay_s in (0.02, 0.1):
        process = subprocess.Popen(
            [sys.executable, "-c", program, address_of(project_database)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        first = int(process.stdout.readline())
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        lines, _ = process.communicate()
        reported = max([first, *map(int, lines.splitlines()[:-1])])
        latest = Records(project_database, "move").latest_number("n")
        assert latest >= reported
    began = time.monotonic()
    Records(project_database, "move").add("n", {})
    assert time.monotonic() - began < 5


def test_a_forked_child_opens_its_own_connection(project_database: Database) -> None:
    Documents(project_database, "verdict").put("before", 1)
    process = multiprocessing.get_context("fork").Process(
        target=lambda: Documents(project_database, "verdict").put("child", 2)
    )
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert Documents(project_database, "verdict").list_all() == {"before": 1, "child": 2}


@ON_SQLITE
def test_a_second_connection_keeps_the_locks_of_the_first(project_database: Database) -> None:
    """Another process that ends must not delete SQLite's log of writes under the connections of this one."""
    documents = Documents(project_database, "verdict")
    documents.put("x", 1)
    with project_database.transaction(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(documents.get, "x").result() == 1
    program = (
        "import sys\n"
        "from skewless.infra.platform.storage.project_state import open_database\n"
        "from skewless.infra.platform.storage.documents import Documents\n"
        "documents = Documents(open_database(sys.argv[1]), 'verdict')\n"
        "documents.put('other', 1); print(sorted(documents.list_all()))\n"
    )
    for expected in (["other", "x"], ["after", "other", "x"]):
        command = [sys.executable, "-c", program, address_of(project_database)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(expected)
        assert sorted(documents.list_all()) == expected
        documents.put("after", 1)


def test_a_busy_database_is_a_clear_error(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "a.db", busy_s=0.1)
    Documents(database, "verdict").put("x", 1)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"a\.db: cannot be used: database is locked\. Fix: find the process"):
        Documents(database, "verdict").put("x", 2)
    assert Documents(database, "verdict").get("x") == 1  # reads do not wait
    other.execute("ROLLBACK")
    Documents(database, "verdict").put("x", 2)


def test_a_read_alone_creates_no_file(tmp_path: Path) -> None:
    state = ProjectState(tmp_path / "state")
    assert Documents(state.database, "verdict").get("x") is None
    assert not state.folder.exists()
    Documents(state.database, "verdict").put("x", 1)
    assert stat.S_IMODE((state / "skewless.db").stat().st_mode) == 0o600


def test_a_folder_that_is_deleted_and_made_again_has_a_new_database(tmp_path: Path) -> None:
    state = ProjectState(tmp_path / "state")
    for body in range(3):
        Documents(state.database, "verdict").put("x", body)
        assert Documents(state.database, "verdict").revision("x") == 1
        shutil.copytree(state.folder, tmp_path / f"copy{body}")
        assert Documents(ProjectState(tmp_path / f"copy{body}").database, "verdict").get("x") == body
        shutil.rmtree(state.folder)
        assert Documents(state.database, "verdict").get("x") is None


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be read as one" * 50, b"\0" * 4096])
def test_a_corrupt_file_is_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.db").write_bytes(content)
    with pytest.raises(StoreError, match=r"a\.db: cannot be used: file is not a database"):
        Documents(SqliteDatabase(tmp_path / "a.db"), "verdict").get("x")


def test_an_unreachable_server_is_a_clear_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    database = open_database(f"postgresql://me:secret@127.0.0.1:{port}/shop")
    with pytest.raises(StoreError, match=r"database 127\.0\.0\.1/shop: cannot be used") as raised:
        Documents(database, "verdict").get("x")
    assert "secret" not in str(raised.value)


def test_a_lost_connection_is_opened_again(postgres_url: str) -> None:
    database = open_database(f"{postgres_url}{'&' if '?' in postgres_url else '?'}schema=lost")
    documents = Documents(database, "verdict")
    documents.put("x", 1)
    cut = open_database(postgres_url)
    cut.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with pytest.raises(StoreError):
        documents.put("x", 2)
    documents.put("x", 3)
    assert documents.get("x") == 3


def test_another_kind_of_address_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"setting 'database_url': is not an address we know .got 'mysql'"):
        open_database("mysql://user:secret@host/x")


def test_an_address_without_its_plugin_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.platform.host.plugins._entry_points", lambda *_: EntryPoints())
    with pytest.raises(DefinitionError, match=r"got 'postgresql'.*pip install 'skewless\[postgres\]'"):
        open_database("postgresql://h/missing")
    for scheme in ("s3", "gs", "az"):
        with pytest.raises(DefinitionError, match=rf"got '{scheme}'.*pip install 'skewless\[cloud\]'"):
            open_storage(tmp_path, f"{scheme}://bucket/x", 1)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_schemas_are_upgraded_step_by_step_and_a_newer_one_is_refused(tmp_path: Path, steps: int) -> None:
    versions = [STEPS[0], ("CREATE TABLE two (x BIGINT)",), ("ALTER TABLE two ADD COLUMN y TEXT",)]
    old = SqliteDatabase(tmp_path / "a.db", versions[:steps])
    Documents(old, "verdict").put("x", 1)
    assert old.schema_version() == steps

    new = SqliteDatabase(tmp_path / "a.db", versions)
    if steps < len(versions):
        with pytest.raises(StoreError, match=rf"has schema {steps}, and this release needs schema 3. Fix: .*apply"):
            Documents(new, "verdict").get("x")
    assert new.upgrade() == steps
    assert Documents(new, "verdict").get("x") == 1
    if steps < len(versions):
        with pytest.raises(StoreError, match=rf"has schema 3, and this release knows schema {steps} at most"):
            SqliteDatabase(tmp_path / "a.db", versions[:steps]).upgrade()
        with pytest.raises(StoreError, match=r"has schema 3"):
            Documents(SqliteDatabase(tmp_path / "a.db", versions[:steps]), "verdict").get("x")


def test_projects_of_one_server_have_a_schema_each(tmp_path: Path, postgres_url: str) -> None:
    states = []
    for name in ("fraud", "delay"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "feature_store.yaml").write_text(f"project: {name}\n")
        states.append(ProjectState.of(tmp_path / name, Settings(database_url=postgres_url)))
        Documents(states[-1].database, "verdict").put("x", name)
    assert [Documents(state.database, "verdict").get("x") for state in states] == ["fraud", "delay"]
