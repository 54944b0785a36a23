"""A small scheduler of two jobs that write down that they ran, as a process that can be killed at any step.

Run as a program: ``scheduler_world.py steps ROOT URL NOW POINT SIDE`` makes one term's steps on a stopped clock;
``scheduler_world.py wall ROOT URL TTL`` runs on wall time, in processes, until SIGTERM. ROOT is a folder and URL the
address of a database.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from skewless.contract.clock import Clock, ManualClock, SystemClock
from skewless.infra.platform.jobs.execution import Completion, Execution, ProcessExecution
from skewless.infra.platform.jobs.ledger import Ledger, Requests
from skewless.infra.platform.jobs.run import Run
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.leases import Leases
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.training.scheduling.candidate import Candidate, StopSignal
from skewless.training.scheduling.job import FixedInterval, Job
from skewless.training.scheduling.leader_term import LeaderTerm
from tests.reliability.kills import ROOT, Side, Steps

SECOND = 1_000_000
EVERY_S = 2
STEPS_TTL_S = 60.0  # the lease of a killed process is free at once
JOBS = (
    Job(name="tick", words=("tick",), schedule=FixedInterval(EVERY_S * SECOND), queue="data", limit_s=60.0),
    Job(
        name="retrain m",
        words=("m",),
        schedule=FixedInterval(EVERY_S * SECOND),
        queue="models",
        limit_s=60.0,
        is_retried=True,
    ),
)
METHODS: dict[type, tuple[str, ...]] = {
    Leases: ("acquire", "release"),
    Ledger: ("begin_term", "register_job", "start", "end"),
}
# A line is written in one step, so that no kill leaves half of it.
WRITE = (
    "import os, sys; file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT); "
    "os.write(file, sys.argv[2].encode())"
)


def effects(root: Path) -> list[str]:
    """Return the ids of the runs whose work was done, in that order."""
    path = root / "effects"
    return path.read_text().split() if path.exists() else []


def ready(root: Path, pid: int) -> Path:
    """Return the file that says that a process listens to signals."""
    return root / f"ready-{pid}"


def child(*words: str) -> list[str]:
    """Return the command of a scheduler in a process of its own."""
    return [sys.executable, str(Path(__file__)), *words]


def environment() -> dict[str, str]:
    """Return its environment."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def killed(root: Path, url: str, now_us: int, point: str, side: Side) -> subprocess.CompletedProcess[str]:
    """Make the steps of one term, in a process that kills itself at a point."""
    command = child("steps", str(root), url, str(now_us), point, side)
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


def candidate(root: Path, url: str, clock: Clock, ttl_s: float, stop_signal: StopSignal, *, here: bool) -> Candidate:
    """Return who would be the scheduler; its work is done in this process, or in others."""
    state = ProjectState(root, url)
    ledger = Ledger(state)

    def launch(run: Run, _words: Sequence[str]) -> Execution:
        command = [sys.executable, "-S", "-c", WRITE, str(root / "effects"), f"{run.id}\n"]
        if here:
            return Completion(code=subprocess.run(command, check=True).returncode)
        answer = tempfile.TemporaryFile()  # noqa: SIM115 - the work closes it
        return ProcessExecution(command, environment=os.environ, silence_s=ttl_s * 0.8, stdout=answer)

    def start_term(token: int) -> LeaderTerm:
        return LeaderTerm(
            ledger=ledger,
            requests=Requests(state),
            launch=launch,
            clock=clock,
            token=token,
            jobs=lambda: JOBS,
        )

    leases = Leases(state.database, ttl_s)
    return Candidate(leases=leases, ledger=ledger, clock=clock, start_term=start_term, stop_signal=stop_signal)


def one_term(root: Path, url: str, now_us: int) -> None:
    """Take the lease, end the runs of the former leader, run the due jobs, and leave."""
    candidate_ = candidate(root, url, ManualClock(now_us), STEPS_TTL_S, StopSignal(), here=True)
    with candidate_.alone() as term:
        while term.step() or term.running:
            pass


def _statement(_database: Database, sql: str, *_values: object) -> str:
    """Return the first word: a kill after a write inside a transaction is before its commit."""
    return sql.split(maxsplit=1)[0].lower()


def main(arguments: Sequence[str]) -> None:
    """Run as the first word says."""
    how, root, url, *rest = arguments
    if how == "wall":
        stop_signal = StopSignal()
        waiting = candidate(Path(root), url, SystemClock(), float(rest[0]), stop_signal, here=False)
        with stop_signal.handle_signals():
            ready(Path(root), os.getpid()).touch()
            waiting.serve()
        return
    now_us, point, side = rest
    steps = Steps(point, "after" if side == "after" else "before")
    steps.wrap(subprocess, "run", lambda *_: "work")
    steps.wrap(Database, "execute", _statement)
    for owner, names in METHODS.items():
        for name in names:
            steps.wrap(owner, name, lambda *_, name=name: name)
    one_term(Path(root), url, int(now_us))
    if not point:
        sys.stdout.write("\n".join(["", *steps.passed]))


if __name__ == "__main__":
    main(sys.argv[1:])
