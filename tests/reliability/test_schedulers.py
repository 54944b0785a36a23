"""Two schedulers of one project on wall time: holders are killed or lose Redis, and no tick runs twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from skewless.infra.jobs.ledger import FOLDER, Ledger
from skewless.infra.jobs.run import Run
from skewless.infra.online.store import open_lease
from skewless.infra.storage.durable import hold_lock
from skewless.infra.storage.project_state import ProjectState
from tests.reliability.kills import ROOT
from tests.servers.node import Node, running
from tests.servers.programs import program
from tests.worlds.scheduler import EVERY_S, SECOND, child, effects, environment, ready
from tests.worlds.waiting import PATIENCE_S, eventually, until

TTL_S = 1.0


class SchedulerPair:
    """Two scheduler processes on one state folder and one Redis."""

    def __init__(self, root: Path, node: Node) -> None:
        self.root, self.node = root, node
        self.ledger = Ledger(ProjectState(root))
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.lock = root / FOLDER / ".lock"
        self.log = root.with_name("schedulers.log").open("ab")

    def start(self) -> None:
        """Start one more."""
        command = child("wall", str(self.root), self.node.url, str(TTL_S))
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=self.log, stderr=self.log)
        self.processes[process.pid] = process

    def holder(self) -> int:
        """Return the process that holds the lease, once there is one."""
        lease = open_lease(self.node.url, "p", "a test", TTL_S)
        try:
            return int(eventually(lease.read_holder) or 0)
        finally:
            lease.close()

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
        return [self.ledger.get(run_id) for run_id in self.ledger.ids()]

    def wait_for_runs(self, n: int, token: int) -> None:
        """Wait until so many runs of a term were done."""
        until(lambda: sum(run.token == token and run.state == "done" for run in self.runs()) >= n)

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
        bodies = [json.loads(path.read_text()) for path in sorted((self.root / "scheduler/terms").glob("*.json"))]
        return {body["token"]: body["started_us"] for body in bodies}


@contextmanager
def pair_in(folder: Path) -> Iterator[SchedulerPair]:
    with running(Node(program("valkey"), folder / "node")) as node:
        pair = SchedulerPair(folder / "state", node)
        (folder / "state").mkdir()
        pair.start()
        pair.start()
        try:
            yield pair
        finally:
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
            assert next_ - one == EVERY_S * SECOND or is_change, (job, first[one], first[next_])
    # On a loaded machine a run may still be under way at the next tick, which is refused then.
    begun = [run for run in runs if run.id.job == "retrain m" and run.state != "refused"]
    done = {run.id.tick_us for run in begun if run.state == "done"}
    assert [run for run in begun if run.id.tick_us not in done] == []


def shown(pair: SchedulerPair, n: int) -> str:
    """Return the last lines of the ledger."""
    return "\n".join(f"  {run.id!s:36} token {run.token:3} {run.state:8} {run.cause}" for run in pair.runs()[-n:])


def test_the_second_goes_on_where_the_first_was_killed(tmp_path: Path, tell: Callable[[str], None]) -> None:
    with pair_in(tmp_path) as pair:
        pair.wait_for_runs(1, 1)
        seconds, token = pair.kill_holder()
        pair.wait_for_runs(2, token)
        assert pair.stop() == [0, 0]
        check(pair)
        tell(f"taken over after {seconds:.2f} s (lease {TTL_S} s)\n{shown(pair, 8)}")


def test_without_redis_nothing_begins_and_with_it_work_goes_on(tmp_path: Path) -> None:
    with pair_in(tmp_path) as pair:
        pair.wait_for_runs(1, 1)
        pair.node.kill()
        time.sleep(TTL_S * 1.2)
        before = len(pair.ledger.ids())
        time.sleep(2 * EVERY_S)
        assert len(pair.ledger.ids()) == before
        pair.node.start()  # it has lost its data: the token goes on from the ledger
        token = eventually(pair.ledger.latest_token, lambda token: token > 1)
        pair.wait_for_runs(2, token)
        assert pair.stop() == [0, 0]
        check(pair)


def test_a_holder_that_was_paused_ends_and_begins_nothing_when_it_wakes(tmp_path: Path) -> None:
    with pair_in(tmp_path) as pair:
        pair.wait_for_runs(1, 1)
        paused = pair.holder()
        with hold_lock(pair.lock):  # a holder that was stopped inside the ledger's lock would keep it
            pair.processes[paused].send_signal(signal.SIGSTOP)
        token = eventually(pair.ledger.latest_token, lambda token: token > 1)
        pair.wait_for_runs(1, token)
        before = {run.id for run in pair.runs() if run.token == 1}
        pair.processes[paused].send_signal(signal.SIGCONT)
        pair.wait_for_runs(3, token)
        assert {run.id for run in pair.runs() if run.token == 1} == before
        assert pair.holder() != paused
        assert pair.stop() == [0, 0]
        check(pair)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_holders_killed_at_random_moments(tmp_path: Path, tell: Callable[[str], None]) -> None:
    seed = random.randrange(2**32)
    chance, took = random.Random(seed), list[float]()
    with pair_in(tmp_path) as pair:
        pair.wait_for_runs(1, 1)
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
