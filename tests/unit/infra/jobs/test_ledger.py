"""The ledger: ticks are claimed once, ends are said once, and who is fenced off writes nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from skewless.contract.errors import ConflictError, RequestError, StoreError
from skewless.infra.jobs.ledger import Ledger
from skewless.infra.jobs.run import Run, RunId
from skewless.infra.storage.project_state import ProjectState


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(ProjectState(tmp_path))
    ledger.begin_term(1, "first", 0)
    return ledger


def run(tick_us: int, job: str = "drift m", token: int = 1, attempt: int = 1) -> Run:
    return Run(
        id=RunId(job=job, tick_us=tick_us, attempt=attempt),
        cause="due",
        token=token,
        started_us=7,
        inputs={"words": []},
    )


def test_a_run_is_as_it_was_written(ledger: Ledger) -> None:
    assert ledger.start(run(5))
    assert ledger.get(run(5).id) == run(5)
    ended = ledger.end(run(5), "failed", 9, token=1, outputs={"rows": 3}, error="no room")
    assert (ended.state, ended.ended_us, ended.outputs, ended.error) == ("failed", 9, {"rows": 3}, "no room")
    assert ledger.get(run(5).id) == ended
    assert ledger.open() == []


def test_a_tick_is_claimed_once_among_many(ledger: Ledger) -> None:
    won: list[bool] = []
    threads = [threading.Thread(target=lambda: won.append(ledger.start(run(5)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 7 + [True]


def test_the_first_word_on_an_end_holds(ledger: Ledger) -> None:
    ledger.start(run(5))
    ledger.end(run(5), "lost", 8, token=1)
    assert ledger.end(run(5), "done", 9, token=1).state == "lost"


def test_after_a_later_term_the_one_before_writes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    ledger.start(run(5))
    other = Ledger(ProjectState(tmp_path))
    other.begin_term(4, "second", 1)
    before = sorted(tmp_path.rglob("*.json"))
    for write in (
        lambda: ledger.start(run(6)),
        lambda: ledger.end(run(5), "done", 9, token=1),
        lambda: ledger.register_job("new", 1, 9),
        lambda: ledger.begin_term(4, "third", 9),
        lambda: ledger.begin_term(3, "third", 9),
    ):
        with pytest.raises(ConflictError) as caught:
            write()
        assert "token 4" in caught.value.problem
    assert sorted(tmp_path.rglob("*.json")) == before
    assert other.end(run(5), "lost", 9, token=4).state == "lost"


def test_runs_come_in_the_order_of_their_ticks(ledger: Ledger) -> None:
    for tick_us, job in ((2_000_000, "b"), (1, "a"), (1_000_000, "drift m"), (1_000_001, "a")):
        ledger.start(run(tick_us, job))
    assert [run_id.tick_us for run_id in ledger.ids()] == [1, 1_000_000, 1_000_001, 2_000_000]
    assert [run_id.tick_us for run_id in ledger.ids("a")] == [1, 1_000_001]
    ledger.end(run(1, "a"), "done", 2, token=1)
    assert [run_id.job for run_id in ledger.open()] == ["drift m", "a", "b"]


def test_a_job_is_known_since_it_was_first_seen(ledger: Ledger) -> None:
    assert [ledger.register_job("a", 1, 5), ledger.register_job("a", 1, 9)] == [5, 5]
    assert ledger.ids() == []


def test_pruning_keeps_what_is_young_open_or_the_newest_of_its_job(ledger: Ledger) -> None:
    for tick_us, job in ((1, "a"), (2, "a"), (3, "a"), (9, "a"), (1, "b")):
        ledger.start(run(tick_us, job))
    for tick_us in (1, 3, 9):
        ledger.end(run(tick_us, "a"), "done", 10, token=1)
    assert ledger.prune(9) == 2
    assert [(run_id.job, run_id.tick_us) for run_id in ledger.ids()] == [("b", 1), ("a", 2), ("a", 9)]


def test_a_new_term_sweeps_what_killed_writers_left(ledger: Ledger, tmp_path: Path) -> None:
    ledger.start(run(5))
    left = tmp_path / "scheduler/runs/drift:m/.1970.json.0123.tmp"
    left.write_text("half")
    ledger.begin_term(2, "second", 1)
    assert not left.exists()
    assert ledger.open() == [run(5).id]


def test_what_is_not_there_or_damaged_is_said(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="not in the ledger"):
        ledger.get(run(5).id)
    ledger.start(run(5))
    (path,) = (tmp_path / "scheduler/runs").glob("*/1970*.json")
    path.write_text("{")
    with pytest.raises(StoreError, match="corrupt"):
        ledger.get(run(5).id)
