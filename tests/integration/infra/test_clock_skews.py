"""The offset of a stream worker's clock is recorded, so that the replay knows how far its times may be wrong."""

from __future__ import annotations

import threading
from itertools import chain, repeat
from pathlib import Path

import pytest

from skewless.infra.log.clock_skews import ClockSkews
from skewless.infra.platform.storage.database import Database
from skewless.infra.reads.online.redis_store import RedisWriter
from skewless.project import Project
from tests.worlds.command_line import done, run
from tests.worlds.waiting import until
from tests.worlds.windowed import write_repo


def test_the_largest_offset_of_a_source_stays(project_database: Database) -> None:
    skews = ClockSkews(project_database)
    assert skews.largest("landings") == 0
    for skew_us in (30, 200, 5):
        skews.record("landings", skew_us)
    skews.record("other", 7)
    assert (skews.largest("landings"), skews.largest("other")) == (200, 7)


def test_a_worker_records_the_offset_of_its_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = write_repo(tmp_path / "p")
    for verb in ("apply", "import", "backfill"):
        done(verb, "--repo", repo)
    monkeypatch.setattr(RedisWriter, "clock_offset_us", lambda _: -50_000)
    assert run("stream", "--until-idle", "--repo", repo).code == 0
    with Project(repo) as project:
        assert ClockSkews(project.state.database).largest("landings") == 50_000
        project.private.stop()


def test_a_worker_measures_its_clock_while_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = write_repo(tmp_path / "p")
    for verb in ("apply", "import", "backfill"):
        done(verb, "--repo", repo)
    offsets = chain([5_000], repeat(-9_000_000))
    monkeypatch.setattr(RedisWriter, "clock_offset_us", lambda _: next(offsets))
    monkeypatch.setattr("skewless.infra.ingest.streams.worker_group._POLL_S", 0.02)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker_group._HOUSEKEEPING_S", 0.1)
    with Project(repo) as project:
        stop = threading.Event()
        worker = threading.Thread(target=lambda: project.stream(stop=stop))
        worker.start()
        try:
            until(lambda: ClockSkews(project.state.database).largest("landings") == 9_000_000)
        finally:
            stop.set()
            worker.join()
        project.private.stop()
