"""Two schedulers of one project on wall time: holders are killed or lose the database, and no tick runs twice."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.jobs.run import Run
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.documents import Records
from skewless.infra.platform.storage.leases import Leases
from skewless.training.scheduling.candidate import LEASE
from tests.nightly.worlds.scheduler import EVERY_S, SECOND, child, effects, environment, ready
from tests.reliability.kills import ROOT
from tests.servers.postgres import address_of, state_of
from tests.worlds.waiting import PATIENCE_S, eventually, until

TTL_S = 2.0


class SchedulerPair:
    """Two scheduler processes on one database."""

    def __init__(self, root: Path, database: Database) -> None:
        self.root, self.database = root, database
        self.ledger, self.leases = Ledger(state_of(database)), Leases(database)
        self.outage_us = 0, 0
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        database.upgrade()  # or creating the tables may take longer than a lease
        self.log = root.with_name("schedulers.log").open("ab")

    def start(self) -> None:
        """Start one more."""
        command = child("wall", str(self.root), address_of(self.database), str(TTL_S))
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=self.log, stderr=self.log)
        self.processes[process.pid] = process

    def holder(self) -> int:
        """Return the process that holds the lease, once there is one."""
        holder = eventually(lambda: self.leases.read_holder(LEASE)) or ""
        return int(holder.split(":")[1])

    def kill_holder(self) -> tuple[float, int]:
        """Kill the holder and start another; return the seconds until the next took over, and its token."""
        before = self.ledger.latest_token()
        process = self.processes.pop(self.holder())
        process.kill()
        killed_at = time.monotonic()
        process.wait()
        token = eventually(self.ledger.latest_token, lambda token: token > before)
        seconds = time.monotonic() - killed_at
        self.start()
        return seconds, token

    def runs(self) -> list[Run]:
        return self.ledger.read_latest_first()[::-1]

    def wait_for_runs(self, n: int, token: int) -> None:
        """Wait until so many runs of a term or of later ones were done."""
        until(lambda: sum(run.token >= token and run.state == "done" for run in self.runs()) >= n)

    def wait_for_first_run(self) -> int:
        """Wait until a run of the latest term was done; return its token."""
        until(lambda: any(run.state == "done" and run.token == self.ledger.latest_token() for run in self.runs()))
        return self.ledger.latest_token()

    def stop(self) -> list[int]:
        """Tell all to stop; return their exit codes."""
        for pid, process in self.processes.items():
            until(lambda: ready(self.root, pid).exists())  # noqa: B023 - called here
            process.terminate()
        codes = [process.wait(PATIENCE_S) for process in self.processes.values()]
        self.log.close()
        return codes

    def terms(self) -> dict[int, int]:
        """Return when each token's term began."""
        terms = Records(self.database, "leader_term").read_latest_first("scheduler")
        return {token: body["started_us"] for token, body in terms}


# On SQLite, hosts share no project.
each_database = pytest.mark.parametrize(
    "project_database", [pytest.param("sqlite", marks=pytest.mark.soak), "postgres"], indirect=True
)


@pytest.fixture
def pair(project_database: Database, tmp_path: Path) -> Iterator[SchedulerPair]:
    root = tmp_path / "state"
    root.mkdir()
    pair = SchedulerPair(root, project_database)
    pair.start()
    pair.start()
    yield pair
    for process in pair.processes.values():
        process.kill()
        process.wait()


def check(pair: SchedulerPair) -> None:
    """Check that each tick ran at most once, in the term of its time; only around a change may one be missing."""
    runs, starts = pair.runs(), pair.terms()
    assert pair.ledger.open() == []
    assert [name for name, n in Counter(effects(pair.root)).items() if n > 1] == []
    assert {str(run.id) for run in runs if run.state == "done"} <= set(effects(pair.root))
    for run in runs:
        assert run.started_us >= starts[run.token], run
    for job in ("tick", "retrain m"):
        first = {run.id.tick_us: run for run in reversed(runs) if run.id.job == job}
        ticks = sorted(first)
        for one, next_ in pairwise(ticks):
            is_change = first[one].token != first[next_].token
            in_outage = one <= pair.outage_us[1] and next_ >= pair.outage_us[0]
            assert next_ - one == EVERY_S * SECOND or is_change or in_outage, (job, first[one], first[next_])
    # On a loaded machine a run may still be in progress at the next tick, which is refused then.
    begun = [run for run in runs if run.id.job == "retrain m" and run.state != "refused"]
    done = {run.id.tick_us for run in begun if run.state == "done"}
    assert [run for run in begun if run.id.tick_us not in done] == []


def shown(pair: SchedulerPair, n: int) -> str:
    """Return the last lines of the ledger."""
    return "\n".join(f"  {run.id!s:36} token {run.token:3} {run.state:8} {run.cause}" for run in pair.runs()[-n:])


@each_database
def test_the_second_goes_on_where_the_first_was_killed(pair: SchedulerPair, tell: Callable[[str], None]) -> None:
    pair.wait_for_first_run()
    seconds, token = pair.kill_holder()
    pair.wait_for_runs(2, token)
    assert pair.stop() == [0, 0]
    check(pair)
    tell(f"taken over after {seconds:.2f} s (lease {TTL_S} s)\n{shown(pair, 8)}")


@each_database
def test_while_nothing_can_be_written_nothing_begins_and_then_work_goes_on(pair: SchedulerPair) -> None:
    first = pair.wait_for_first_run()
    began_us = time.time_ns() // 1_000
    with pair.database.transaction():  # another writer does not end
        before = len(pair.runs())
        time.sleep(TTL_S * 1.2 + 2 * EVERY_S)
        assert len(pair.runs()) == before
    pair.outage_us = began_us, time.time_ns() // 1_000
    token = eventually(pair.ledger.latest_token, lambda token: token > first)
    pair.wait_for_runs(2, token)
    assert pair.stop() == [0, 0]
    check(pair)


@each_database
def test_a_holder_that_was_paused_ends_and_begins_nothing_when_it_wakes(pair: SchedulerPair) -> None:
    first = pair.wait_for_first_run()
    paused = pair.holder()
    with pair.database.transaction():  # a holder that was stopped inside a transaction would block the others
        pair.processes[paused].send_signal(signal.SIGSTOP)
    token = eventually(pair.ledger.latest_token, lambda token: token > first)
    pair.wait_for_runs(1, token)
    before = {run.id for run in pair.runs() if run.token == first}
    pair.processes[paused].send_signal(signal.SIGCONT)
    pair.wait_for_runs(3, token)
    assert {run.id for run in pair.runs() if run.token == first} == before
    assert pair.holder() != paused
    assert pair.stop() == [0, 0]
    check(pair)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_holders_killed_at_random_moments(pair: SchedulerPair, tell: Callable[[str], None]) -> None:
    seed = random.randrange(2**32)
    chance, took = random.Random(seed), list[float]()
    pair.wait_for_first_run()
    for _ in range(30):
        time.sleep(chance.uniform(0, 2 * EVERY_S))
        seconds, _ = pair.kill_holder()
        took.append(seconds)
    pair.wait_for_runs(2, pair.ledger.latest_token())
    assert pair.stop() == [0, 0]
    check(pair)
    states = Counter(run.state for run in pair.runs())
    median, most = sorted(took)[len(took) // 2], max(took)
    tell(
        f"seed {seed}: {len(took)} holders killed, {dict(states)}; "
        f"taken over after {median:.2f} s in the median, {most:.2f} s at most (lease {TTL_S} s)\n{shown(pair, 16)}"
    )
