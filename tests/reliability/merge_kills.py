"""Shipping, compaction and deletion in the prediction log, in a process that kills itself at a chosen durable step.

Run as a program: ``merge_kills.py STATE OUT ACTION`` does this to copies of a state folder, and kills each before or
after another step. It leaves the copies under ``OUT/POINT/SIDE`` and lists those points.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from skewless.infra.predictions.segments import prediction_spool
from skewless.infra.storage.project_state import ProjectState
from tests.reliability.kills import ROOT, Side, Steps
from tests.unit.infra.predictions.merges import delete_objects, merge

SIDES: tuple[Side, ...] = ("before", "after")
ACTIONS: Mapping[str, Callable[[ProjectState], object]] = {
    "ship": lambda state: prediction_spool(state).ship(),
    "merge": merge,
    "delete": delete_objects,
}


def kill_everywhere(state: Path, out: Path, action: str) -> list[str]:
    """Leave a killed copy of a state folder for each point and side; return the points."""
    command = [sys.executable, "-m", "tests.reliability.merge_kills", str(state), str(out), action]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def _watched(point: str, side: Side) -> Steps:
    steps = Steps(point, side)
    steps.wrap(os, "fsync", lambda descriptor: f"sync-{_kind(Path(f'/proc/self/fd/{descriptor}').readlink())}")
    steps.wrap(os, "link", lambda _, target: f"link-{_kind(Path(target))}")
    steps.wrap(Path, "unlink", lambda path, **_: f"unlink-{_kind(path)}")
    steps.wrap_commits()
    return steps


def _kind(path: Path) -> str:
    if path.is_dir():
        return "folder"
    return next((name for name in ("spool", "staging", "log") if name in path.parts[-3:]), path.parent.name)


def _forked(state: Path, action: str, point: str, side: Side) -> tuple[int, list[str]]:
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        with os.fdopen(into, "w") as report:
            steps = _watched(point, side)
            ACTIONS[action](ProjectState(state))
            report.write(" ".join(steps.passed))
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as report:
        passed = report.read().split()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), passed


def _cases(state: Path, out: Path, action: str) -> Iterator[str]:
    whole = out / "whole"
    shutil.copytree(state, whole)
    status, points = _forked(whole, action, "", "before")
    assert status == 0
    for point in points:
        for side in SIDES:
            place = out / point / side
            shutil.copytree(state, place)
            status, _ = _forked(place, action, point, side)
            assert status == -9, (point, side, status)
        yield point


def main(arguments: Sequence[str]) -> None:
    """Kill at each point, and list the points."""
    state, out, action = arguments
    sys.stdout.write("\n".join(_cases(Path(state), Path(out), action)))


if __name__ == "__main__":
    main(sys.argv[1:])
