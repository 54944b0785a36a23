"""A host whose settings are not those of the others is refused before it writes: its storage, and its partitions."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skewless.contract.errors import DefinitionError, StoreError
from skewless.contract.settings import SHARED_SETTINGS, Settings
from skewless.infra.ingest.streams import importing
from skewless.infra.platform.host.processes import ProcessRecord, read_processes, send_heartbeats
from skewless.infra.platform.storage import project_state
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.infra.platform.storage.objects import FolderStorage
from skewless.operations.audited import SETTINGS, record_settings, show_settings
from skewless.operations.health.checkup.project import check_hosts
from skewless.project import Project
from tests.worlds.windowed import write_repo


@pytest.fixture
def shared_settings(tmp_path: Path, bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of hosts that share a database and a bucket; each project is opened as by a new process."""
    monkeypatch.setattr(project_state, "_storages", {})
    return {"database_url": f"sqlite:///{tmp_path}/shared.db", "storage_url": bucket_url}


def host(tmp_path: Path, name: str, **settings: str | int) -> Project:
    """Return the project of another host: a clone of the repo with a state folder of its own."""
    first, repo = tmp_path / "first", tmp_path / name
    if not first.exists():
        write_repo(first)
    if not repo.exists():
        shutil.copytree(first, repo, ignore=shutil.ignore_patterns(".skewless"))
    project_state._storages.clear()
    return Project(repo, **settings)


def test_a_host_that_forgets_the_storage_registers_nothing(tmp_path: Path, shared_settings: dict[str, str]) -> None:
    with host(tmp_path, "first", **shared_settings) as project:
        project.apply()
        project.import_events()
        expected = segments(project)
    with host(tmp_path, "second", **shared_settings) as project:
        project.import_events()
    forgetful = {"database_url": shared_settings["database_url"]}
    with host(tmp_path, "third", **forgetful) as project:
        for work in (project.apply, project.replay, project.backfill):
            with pytest.raises(DefinitionError, match="setting 'storage_url': is not the storage of the database"):
                work()
        assert not list(project.state.folder.rglob("*.parquet"))
    with host(tmp_path, "first", **shared_settings) as project:
        assert segments(project) == expected


def test_recover_uploads_what_only_one_host_has(
    tmp_path: Path, shared_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hosts worked before a storage was recorded, and one had forgotten it."""
    monkeypatch.setattr(importing, "BATCH_ROWS", 2)
    with host(tmp_path, "first", **shared_settings) as project:
        project.apply()
        Documents(project.state.database, "shared").delete("facts")
    with host(tmp_path, "second", database_url=shared_settings["database_url"]) as project:
        project.import_events()
        expected, files = segments(project), sorted(project.state.folder.rglob("log/**/*.parquet"))
    assert len(files) == len(expected) > 1
    with host(tmp_path, "first", **shared_settings) as project:
        with pytest.raises(StoreError, match=r"is missing.*run `skewless recover`, also on the other hosts"):
            project.backfill()
        report = project.recover()
        assert (report.uploaded, report.missing) == ([], expected)
        assert isinstance(report.error, StoreError)
    last = files[-1].read_bytes()
    files[-1].write_bytes(last[:-1])
    with host(tmp_path, "second", **shared_settings) as project:
        report = project.recover(dry_run=True)
        assert (report.uploaded, report.missing, list(project.state.storage.list_objects("log"))) == (
            expected[:-1],
            expected[-1:],
            [],
        )
        assert project.recover().uploaded == expected[:-1]
        files[-1].write_bytes(last)
        report = project.recover()
        assert (report.uploaded, report.missing, report.error) == (expected[-1:], [], None)
        assert not any(file.exists() for file in files)  # an erasure would not find them
    with host(tmp_path, "third", **shared_settings) as project:
        assert segments(project) == expected
        (built, *_) = project.backfill()
        assert built.states
        project.private.stop()


def segments(project: Project) -> list[str]:
    return [name for (name,) in project.state.database.query("SELECT object FROM segments ORDER BY object")]


def test_partitions_are_those_of_the_applied_plan(tmp_path: Path, shared_settings: dict[str, str]) -> None:
    with host(tmp_path, "first", stream_partitions=2, **shared_settings) as project:
        project.apply()
    with host(tmp_path, "second", stream_partitions=3, **shared_settings) as project:
        with pytest.raises(DefinitionError, match="setting 'stream_partitions': is 2 where the plan was applied"):
            project.stream(until_idle=True)
        project.apply()
        project.stream(until_idle=True)
        project.private.stop()


def test_while_the_database_is_away_a_host_that_was_right_goes_on(
    tmp_path: Path, shared_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with host(tmp_path, "first", **shared_settings) as project:
        project.apply()
        project_state._storages.clear()

        def fail(*_: object) -> None:
            raise StoreError("database", "is unavailable", fix="start it")

        with monkeypatch.context() as patch:
            patch.setattr(Database, "query", fail)
            assert not project.state.storage.is_known
        assert project.state.storage.is_known


def test_a_local_project_has_no_place(tmp_path: Path) -> None:
    with host(tmp_path, "first") as project:
        project.apply()
        assert isinstance(project.state.storage, FolderStorage)
        assert not (project.state.folder / "place").exists()


@contextmanager
def living_server(project: Project, name: str) -> Iterator[None]:
    """Send the heartbeats of a server on a host with this name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: name)
        record = ProcessRecord(project.state, "server")
    with send_heartbeats(record, lambda: "", dict):
        end = time.monotonic() + 30.0
        while all(item.host != name for item in read_processes(project.state)):
            assert time.monotonic() < end
            time.sleep(0.01)
        yield


def test_the_doctor_names_each_living_host_with_other_settings(
    tmp_path: Path, shared_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong: dict[str, str | int] = {"auth": "required", "token_rate": 7, "port": 81, "signing_key": "own.pem"}
    with (
        host(tmp_path, "first", **shared_settings) as first,
        host(tmp_path, "other", **shared_settings, **wrong) as other,
    ):
        for name, project in {"web1": first, "web2": other, "gone": other}.items():
            monkeypatch.setattr(socket, "gethostname", lambda name=name: name)
            record_settings(project)
        monkeypatch.setattr(socket, "gethostname", lambda: "here")
        with living_server(first, "web1"), living_server(other, "web2"), living_server(first, "here"):
            findings = {item.name: item for item in check_hosts(first.state, first.settings)}
        assert {name: item.verdict for name, item in findings.items()} == {"host web1": "ok", "host web2": "warn"}
        assert findings["host web2"].detail == "has other settings than this host: auth, token_rate"
        assert list(check_hosts(first.state, first.settings)) == []  # no other host lives


def test_each_shared_setting_is_compared_and_no_other(tmp_path: Path, shared_settings: dict[str, str]) -> None:
    with host(tmp_path, "first", **shared_settings) as project, living_server(project, "web2"):
        (finding,) = check_hosts(project.state, project.settings)
        assert (finding.verdict, finding.detail) == ("warn", "has not recorded its settings")
        for name in Settings.model_fields:
            told = {**show_settings(project.settings), name: "another value"}
            Records(project.state.database, SETTINGS).add("web2", told)
            (finding,) = check_hosts(project.state, project.settings)
            differs = finding.detail.partition(": ")[2]
            assert differs == (name if name in SHARED_SETTINGS else "")


def test_a_local_project_compares_no_host(tmp_path: Path) -> None:
    with host(tmp_path, "first") as project:
        project.apply()
        with living_server(project, "web2"):
            assert list(check_hosts(project.state, project.settings)) == []
