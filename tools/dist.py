"""Builds wheel and sdist of skewless, of each plug-in and of each example: ``python -m tools.dist FOLDER``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.changed_plugins import ROOT, plugins


def build(folder: Path) -> list[Path]:
    """Build all packages into a folder; return their files.

    Raises:
        CalledProcessError: one cannot be built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in (ROOT, *plugins()):
        kinds = ("-t", "sdist", "-t", "wheel")
        command = [sys.executable, "-m", "hatchling", "build", *kinds, "-d", str(folder.resolve())]
        subprocess.run(command, cwd=package, check=True, capture_output=True)
    return sorted(folder.iterdir())


if __name__ == "__main__":
    for path in build(Path(sys.argv[1])):
        print(path)
