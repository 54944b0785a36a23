"""An erasure in a process of its own that kills itself before or after a chosen durable step.

Run as a program: ``erase_kills.py REPO POINT SIDE``; ``POINT`` is ``NAME#NUMBER``, or empty to list the points.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.reliability.kills import ROOT, Side, Steps
from tests.worlds.erasures import ERASED, NOW


def erase_points(repo: Path) -> list[str]:
    """Return the points that a whole erasure comes by, in order."""
    done = _child(repo, "", "before")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def killed_erasure(repo: Path, point: str, side: Side) -> bool:
    """Erase until a point, and say whether the process died there rather than end without coming by."""
    done = _child(repo, point, side)
    assert done.returncode in {0, -9}, done.stderr
    return done.returncode == -9


def _child(repo: Path, point: str, side: Side) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.reliability.erase_kills", str(repo), point, side]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def main(arguments: Sequence[str]) -> None:
    """Erase under the steps' eyes; without a point, list those passed."""
    from skewless import ManualClock, Project, workspace  # noqa: PLC0415
    from skewless.infra.online.private_server import PrivateServer  # noqa: PLC0415 - only the child needs these
    from skewless.infra.online.redis_store import RedisWriter  # noqa: PLC0415
    from skewless.infra.storage.objects import FolderStorage  # noqa: PLC0415

    workspace.open_clock = lambda setting: ManualClock(NOW)  # type: ignore[attr-defined]  # noqa: ARG005
    repo, point, side = arguments
    steps = Steps(point, "after" if side == "after" else "before")
    steps.wrap_commits()
    for name in ("put_file", "delete"):
        steps.wrap(FolderStorage, name, lambda *_, name=name: f"object-{name}")
    for name in ("remove", "replace", "set_markers", "publish"):
        steps.wrap(RedisWriter, name, lambda *_, name=name: f"online-{name}")
    steps.wrap(PrivateServer, "rewrite_file", lambda *_: "rewrite-file")
    with Project(repo) as project:
        project.erase({"user": ERASED})
    if not point:
        sys.stdout.write("\n".join(steps.passed))


if __name__ == "__main__":
    main(sys.argv[1:])
