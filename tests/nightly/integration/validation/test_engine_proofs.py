"""Replay, parity and first loads by tasks: the report of one process, also of what was damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from skewless.contract.errors import StoreError
from skewless.infra.reads.engines.results import FOLDER
from skewless.project import Project
from tests.worlds.planted import alter
from tests.worlds.trained import FIRST_CARD, Sandbox, ask
from tests.worlds.workers import WORKERS


@contextmanager
def on_engine(place: Sandbox) -> Iterator[Project]:
    """The project as another process would open it, with all its large work on two workers."""
    with closing(Project(place.repo, engine_rows=0, engine_workers=2)) as project:
        project.__dict__["executor"] = WORKERS
        yield project


def test_replay_gives_the_report_of_one_process(place: Sandbox) -> None:
    for first in (0, 40, 80):
        place.predict(ask(40, first))
    place.predict([{"card_id": None, "shop_id": "", "amount": 0.3, "paid_at": 0}])
    expected = place.project.replay()
    steps: list[tuple[str, int, int]] = []
    with on_engine(place) as project:
        project.on_progress = lambda *step: steps.append(step)
        assert project.replay().as_dict() == expected.as_dict()
        assert list(project.state.storage.list_objects(FOLDER)) == []
    assert steps[-1] == ("replaying predictions", 121, 121)
    assert len(place.log_files()) == 4  # the log's own files are not those of the job
    assert place.project.replay().ok


def test_replay_finds_the_same_alterations(place: Sandbox) -> None:
    for first in (0, 40, 80):
        place.predict(ask(40, first))
    for path in place.log_files()[:2]:
        alter(path, "score", dict.fromkeys((0, 7), lambda score: score + 1e-9))
    expected = place.project.replay()
    assert not expected.ok
    with on_engine(place) as project:
        found = project.replay()
    assert (found.different, found.findings.by_cause) == (expected.different, expected.findings.by_cause)
    assert found.findings.predictions == expected.findings.predictions


def test_an_altered_file_fails_as_in_one_process(place: Sandbox) -> None:
    place.predict(ask(10))
    place.log_files()[0].write_bytes(b"PAR1")
    with on_engine(place) as project, pytest.raises(StoreError, match="log file"):
        project.replay()


def test_parity_gives_the_report_of_one_process_and_repairs(place: Sandbox) -> None:
    for number in range(3):
        key = place.key("card_days", FIRST_CARD + number)
        place.flip("card_days", key, feature=1, bit=number)
    place.redis.delete(place.key("card_days", FIRST_CARD + 9))
    expected = place.project.parity(sample=400).as_dict()
    assert expected["mismatches"] == 4
    with on_engine(place) as project:
        assert project.parity(sample=400).as_dict() == expected
        repaired = project.parity(sample=400, repair=True)
        assert (repaired.as_dict()["repaired"], repaired.as_dict()["left"]) == (4, 0)
        assert project.parity(sample=400).ok
        assert list(project.state.storage.list_objects(FOLDER)) == []


def test_a_first_load_writes_the_rows_of_one_process(place: Sandbox) -> None:
    names = sorted(name for name in place.redis.scan_iter("*") if b":applied" not in name)
    before = {name: place.redis.get(name) for name in names}
    place.redis.flushall()
    with on_engine(place) as project:
        reports = {report.view: report for report in project.materialize(check=False)}
        assert {view: (report.applied, report.written) for view, report in reports.items()} == {
            "card_days": (300, 300),
            "shop_risk": (40, 40),
        }
        assert {name: place.redis.get(name) for name in names} == before
        assert project.parity(sample=400).ok
        assert sum(report.applied for report in project.materialize(check=False)) == 0
        assert list(project.state.storage.list_objects(FOLDER)) == []
