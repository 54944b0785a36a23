"""A scheduler process whose database is away at times keeps its term, and after a lost lease gets a new token."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from skewless.contract.clock import ManualClock
from skewless.contract.errors import StoreError
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.jobs.run import RunId
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.training.scheduling.candidate import StopSignal
from tests.nightly.worlds.scheduler import EVERY_S, SECOND, candidate, effects
from tests.worlds.waiting import eventually, until

AWAY = StoreError("database", "cannot be used", fix="start it")
START = 1_000 * SECOND


@contextmanager
def serving(root: Path, clock: ManualClock) -> Iterator[None]:
    """Run a scheduler in a thread."""
    stop = StopSignal()
    url = f"sqlite:///{root / 'skewless.db'}"
    thread = threading.Thread(target=candidate(root, url, clock, 10.0, stop, here=True).serve)
    thread.start()
    yield
    stop.request_stop()
    thread.join()


def test_a_short_outage_loses_no_run_and_keeps_the_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, clock, failures = Ledger(ProjectState(tmp_path)), ManualClock(START), dict.fromkeys(("open", "end"), 3)
    for name in failures:
        real = getattr(Ledger, name)

        def flaky(*arguments: object, name: str = name, real: object = real, **keywords: object) -> object:
            failures[name] -= 1
            if failures[name] >= 0:
                raise AWAY
            return real(*arguments, **keywords)  # type: ignore[operator]

        monkeypatch.setattr(Ledger, name, flaky)
    known = Documents(ProjectState(tmp_path).database, "known_job")
    with capture_logs() as logs, serving(tmp_path, clock):
        until(lambda: any(log["event"] == "step_failed" for log in logs))
        until(lambda: ledger.latest_token() == 1 and failures["open"] < 0)
        until(lambda: len(known.list_all()) == 2)
        clock.set(START + EVERY_S * SECOND)
        runs = eventually(lambda: ledger.read_latest_first(state="done"), lambda runs: len(runs) == 2)
    assert {run.token for run in runs} == {1}
    assert sorted(effects(tmp_path)) == sorted(str(run.id) for run in runs)
    assert {run.id for run in ledger.read_latest_first()} == {
        RunId(job=job, tick_us=START + EVERY_S * SECOND) for job in ("tick", "retrain m")
    }


def test_a_term_that_could_not_begin_is_followed_by_one_with_a_greater_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database recorded the term without an answer, and the lease was not released."""
    begin, release, failed = Ledger.begin_term, Leases.release, list[str]()

    def begin_unheard(self: Ledger, *arguments: int | str) -> None:
        begin(self, *arguments)  # type: ignore[arg-type]
        if not failed:
            failed.append("begin")
            raise AWAY

    def release_later(self: Leases, lease: object) -> None:
        if len(failed) == 1:
            failed.append("release")
            raise AWAY
        release(self, lease)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "begin_term", begin_unheard)
    monkeypatch.setattr(Leases, "release", release_later)
    ledger, state = Ledger(ProjectState(tmp_path)), ProjectState(tmp_path)
    with serving(tmp_path, ManualClock(START)):
        until(lambda: failed == ["begin", "release"])
        state.database.execute("UPDATE leases SET until_us = 1")  # it has expired
        until(lambda: ledger.latest_token() == 2)
    assert Leases(state.database).read_holder("scheduler") is None
