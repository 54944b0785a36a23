"""A deed of the rollout controller in a process that kills itself before or after a chosen durable step.

Run as a program it reads one order a line and forks for each, so that a kill costs no start: ``REPO DEED POINT SIDE``,
separated by tabs, where ``POINT`` is ``NAME#NUMBER``, or empty to list the points.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import skewless.training.rollout.labelled_evidence
import skewless.training.rollout.plan  # noqa: F401 - what a deed imports is loaded once, before the forks
from skewless.infra.alerts.alerts import Alerts
from skewless.infra.storage.documents import Records
from skewless.infra.telemetry.logger import configure_logging
from skewless.operations import rollout
from skewless.project import Project
from tests.reliability.kills import ROOT, Side, Steps
from tests.worlds.rollouts import NEW
from tests.worlds.trained import MODEL, open_project


def do(project: Project, deed: str) -> None:
    """Do one deed as a command or the scheduler does."""
    if deed == "begin":
        rollout.begin_rollout(project, MODEL, NEW)
    elif deed == "rollback":
        rollout.rollback(project, MODEL, reason="by hand")
    else:
        rollout.step_rollout(project, MODEL)


class DeedVictims:
    """Runs actions in processes that are killed at chosen places."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def points(self, repo: Path, deed: str) -> list[str]:
        """Return the points that a whole deed comes by, in order."""
        status, *passed = self._order(repo, deed, "", "before")
        assert status == "0", passed
        return passed

    def killed(self, repo: Path, deed: str, point: str, side: Side) -> bool:
        """Do a deed until a point, and say whether the process died there."""
        status, *_ = self._order(repo, deed, point, side)
        assert status in {"0", "-9"}, f"{deed}, {side} {point}: {status}"
        return status == "-9"

    def _order(self, repo: Path, deed: str, point: str, side: Side) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\t".join([str(repo), deed, point, side]) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().split()


@contextmanager
def victims() -> Iterator[DeedVictims]:
    """Run the program of this module for the length of a block."""
    command = [sys.executable, "-m", "tests.reliability.rollout_kills"]
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield DeedVictims(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _watched(point: str, side: Side) -> Steps:
    steps = Steps(point, side)
    steps.wrap(os, "fsync", _synced)
    steps.wrap(os, "link", lambda _, target: f"link-{Path(target).parent.name}")
    steps.wrap(Records, "append", lambda records, *_: f"append-{records._kind}")
    steps.wrap(Alerts, "send", lambda *_: "store-alert")
    steps.wrap(Path, "replace", lambda _, target: f"replace-{Path(target).parent.name}")
    return steps


def _synced(descriptor: int) -> str:
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    return f"sync-{path.name if path.is_dir() else f'draft-of-{path.parent.name}'}"


def _forked(order: Sequence[str]) -> str:
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        with os.fdopen(into, "w") as report:
            _victim(order, report)
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as report:
        passed = report.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return f"{status} {passed}"


def _victim(order: Sequence[str], report: IO[str]) -> None:
    repo, deed, point, side = order
    with open_project(Path(repo)) as project:
        steps = _watched(point, "after" if side == "after" else "before")
        do(project, deed)
        if not point:
            report.write(" ".join(steps.passed))


def main() -> None:
    """Follow orders until there are no more."""
    configure_logging()
    for line in sys.stdin:
        sys.stdout.write(_forked(line.rstrip("\n").split("\t")) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
