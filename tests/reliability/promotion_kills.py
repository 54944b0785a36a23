"""A version written, decided about and promoted in a process that kills itself before or after a chosen durable step.

Run as a program: ``promotion_kills.py PACKAGES POINT SIDE``; ``POINT`` is ``NAME#NUMBER``, or empty to list the points.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from skewless.contract.settings import Settings
from skewless.infra.packages.package import Package, PackageContents, open_package
from skewless.infra.packages.store import PackageStore
from skewless.infra.packages.writer import write_package
from skewless.infra.storage.documents import Records
from skewless.infra.storage.project_state import ProjectState
from skewless.training.decision import Decision
from skewless.training.promotion import CHAMPION, record_decision
from tests.reliability.kills import ROOT, Side, Steps

MODEL = "fraud"


def points(packages: Path) -> list[str]:
    """Return the points that a whole promotion comes by, in order."""
    done = _child(packages, "", "before")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def killed(packages: Path, point: str, side: Side) -> bool:
    """Promote until a point, and say whether the process died there rather than end without coming by."""
    done = _child(packages, point, side)
    assert done.returncode in {0, -9}, done.stderr
    return done.returncode == -9


def promote_again(packages: Path) -> str:
    """Write the first version anew under the next number and make it champion; return its version."""
    return promote_copy(store_of(packages))


def promote_copy(store: PackageStore) -> str:
    """Do the same in any store."""
    first = open_package(store, MODEL, "000001")
    version = write_package(store, MODEL, _contents(first)).version
    decision = Decision(promote=True, reason=f"for {version}", candidate=0.7, champion=0.6)
    record_decision(first.spec, version, decision, store, 7, expect=store.aliases.get(MODEL, CHAMPION))
    return version


def store_of(packages: Path) -> PackageStore:
    """Return the packages of a project, as its settings without a word of ours say."""
    return PackageStore.of(ProjectState(packages.parent), Settings())


def _contents(package: Package) -> PackageContents:
    parts = ("spec", "plan", "reference", "profile", "metrics", "fingerprint", "about", "bounds", "curves", "extra")
    return PackageContents(
        model_name=package.model_file.name,
        model=package.model_file.read_bytes(),
        **{part: getattr(package, part) for part in parts},
    )


def _child(packages: Path, point: str, side: Side) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.reliability.promotion_kills", str(packages), point, side]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def _place(descriptor: int) -> str:
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    return f"sync-{'folder' if path.is_dir() else 'file'}"


def main(arguments: Sequence[str]) -> None:
    """Promote once under the steps' eyes; without a point, list those passed."""
    packages, point, side = arguments
    steps = Steps(point, "after" if side == "after" else "before")
    steps.wrap(os, "fsync", _place)
    steps.wrap(os, "rename", lambda *_: "rename-package")
    steps.wrap(Records, "append", lambda records, *_: f"append-{records._kind}")
    promote_again(Path(packages))
    if not point:
        sys.stdout.write("\n".join(steps.passed))


if __name__ == "__main__":
    main(sys.argv[1:])
