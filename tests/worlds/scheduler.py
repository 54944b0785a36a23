"""A small scheduler of two jobs that write down that they ran, as a process that can be killed at any step.

Run as a program: ``scheduler_world.py steps ROOT URL NOW POINT SIDE`` makes one term's steps on a clock that stands
still; ``scheduler_world.py wall ROOT URL TTL`` runs on wall time, in processes, until it is told to stop.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from skewless.contract.clock import Clock, ManualClock, SystemClock
from skewless.infra.jobs.execution import CompletedExecution, Completion, Execution, ProcessExecution
from skewless.infra.jobs.ledger import Ledger
from skewless.infra.jobs.requests import Requests
from skewless.infra.jobs.run import Run
from skewless.infra.online.redis_lease import RedisLease
from skewless.infra.online.store import open_lease
from skewless.infra.storage.project_state import ProjectState
from skewless.training.scheduling.candidate import Candidate
from skewless.training.scheduling.job import FixedInterval, Job
from skewless.training.scheduling.leader_term import LeaderTerm
from skewless.training.scheduling.stop_signal import StopSignal
from tests.reliability.kills import ROOT, Side, Steps

SECOND = 1_000_000
EVERY_S = 2
STEPS_TTL_S = 0.5
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
    return os.environ | {"PYTHONPATH": str(ROOT)}


def killed(root: Path, url: str, now_us: int, point: str, side: Side) -> subprocess.CompletedProcess[str]:
    """Make the steps of one term, in a process that kills itself at a point."""
    command = child("steps", str(root), url, str(now_us), point, side)
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)


def candidate(root: Path, url: str, clock: Clock, ttl_s: float, stop_signal: StopSignal, *, here: bool) -> Candidate:
    """Return who would be the scheduler; its work is done in this process, or in others."""
    ledger = Ledger(ProjectState(root))

    def launch(run: Run, _words: Sequence[str]) -> Execution:
        command = [sys.executable, "-S", "-c", WRITE, str(root / "effects"), f"{run.id}\n"]
        if here:
            return CompletedExecution(completion=Completion(code=subprocess.run(command, check=True).returncode))
        answer = tempfile.TemporaryFile()  # noqa: SIM115 - the work closes it
        return ProcessExecution(command, environment=os.environ, silence_s=ttl_s * 0.8, stdout=answer)

    def start_term(token: int) -> LeaderTerm:
        return LeaderTerm(
            ledger=ledger,
            requests=Requests(ProjectState(root)),
            launch=launch,
            clock=clock,
            token=token,
            jobs=lambda: JOBS,
        )

    lease = open_lease(url, "p", str(os.getpid()), ttl_s)
    return Candidate(lease=lease, ledger=ledger, clock=clock, start_term=start_term, stop_signal=stop_signal)


def one_term(root: Path, url: str, now_us: int) -> None:
    """Take the lease, make good what was left, run what is due, and leave."""
    candidate_ = candidate(root, url, ManualClock(now_us), STEPS_TTL_S, StopSignal(), here=True)
    with closing(candidate_.lease), candidate_.alone() as term:
        while term.step() or term.running:
            pass


def _linked(_source: Path, target: Path) -> str:
    path = Path(target)
    what = "end" if path.name.endswith(".end.json") else "known" if path.stem == "known" else path.parts[-2]
    return f"link-{what if what in {'end', 'known', 'terms'} else 'start'}"


def _synced(descriptor: int) -> str:
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    return f"sync-{'folder' if path.is_dir() else 'draft'}"


def main(arguments: Sequence[str]) -> None:
    """Run as the first word says."""
    how, root, url, *rest = arguments
    if how == "wall":
        stop_signal = StopSignal()
        waiting = candidate(Path(root), url, SystemClock(), float(rest[0]), stop_signal, here=False)
        with stop_signal.handle_signals(), closing(waiting.lease):
            ready(Path(root), os.getpid()).touch()
            waiting.serve()
        return
    now_us, point, side = rest
    steps = Steps(point, "after" if side == "after" else "before")
    steps.wrap(os, "link", _linked)
    steps.wrap(os, "fsync", _synced)
    steps.wrap(subprocess, "run", lambda *_, **__: "work")
    steps.wrap(RedisLease, "take", lambda *_: "take")
    steps.wrap(RedisLease, "release", lambda *_: "release")
    one_term(Path(root), url, int(now_us))
    if not point:
        sys.stdout.write("\n".join(["", *steps.passed]))


if __name__ == "__main__":
    main(sys.argv[1:])
