"""A compaction of the prediction log in a process that kills itself before or after a chosen durable step.

Run as a program: ``merge_kills.py STATE OUT LATER_S`` compacts copies of a state folder, so many seconds later by the
disk's clock, and kills each at another point. It leaves the copies under ``OUT/POINT/SIDE`` and lists those points.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from skewless.infra.predictions import compaction  # imported once, before the forks
from tests.reliability.kills import ROOT, Side, Steps
from tests.unit.infra.predictions.merges import merge

SIDES: tuple[Side, ...] = ("before", "after")


def kill_everywhere(state: Path, out: Path, later_s: float) -> list[str]:
    """Leave a killed copy of a state folder for each point and side; return the points."""
    command = [sys.executable, "-m", "tests.reliability.merge_kills", str(state), str(out), str(later_s)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def _watched(point: str, side: Side) -> Steps:
    steps = Steps(point, side)
    steps.wrap(os, "fsync", lambda descriptor: f"sync-{_kind(Path(f'/proc/self/fd/{descriptor}').readlink())}")
    steps.wrap(os, "link", lambda _, target: f"link-{_kind(Path(target))}")
    steps.wrap(Path, "replace", lambda _, target: f"replace-{_kind(Path(target))}")
    steps.wrap(Path, "unlink", lambda path: f"unlink-{_kind(path)}")
    steps.wrap(compaction, "add_proven", lambda *_: "store-proven")
    return steps


def _kind(path: Path) -> str:
    if path.is_dir():
        return "log" if path.name == "predictions" else "state"
    if path.suffix == ".tmp":
        return "draft"
    return "merged" if "-merged-" in path.name else "source"


def _forked(state: Path, later_s: float, point: str, side: Side) -> tuple[int, list[str]]:
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        with os.fdopen(into, "w") as report:
            steps = _watched(point, side)
            merge(state, later_s=later_s)
            report.write(" ".join(steps.passed))
        os._exit(0)
    os.close(into)
    with os.fdopen(out) as report:
        passed = report.read().split()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), passed


def _cases(state: Path, out: Path, later_s: float) -> Iterator[str]:
    whole = out / "whole"
    shutil.copytree(state, whole)
    status, points = _forked(whole, later_s, "", "before")
    assert status == 0
    for point in points:
        for side in SIDES:
            place = out / point / side
            shutil.copytree(state, place)
            status, _ = _forked(place, later_s, point, side)
            assert status == -9, (point, side, status)
        yield point


def main(arguments: Sequence[str]) -> None:
    """Kill at each point, and list the points."""
    state, out, later_s = arguments
    sys.stdout.write("\n".join(_cases(Path(state), Path(out), float(later_s))))


if __name__ == "__main__":
    main(sys.argv[1:])
