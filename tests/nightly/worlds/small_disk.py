"""A small disk of its own, which a test can fill."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """Mount a small disk of its own at a folder."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("no right to mount a small disk: run the tests as root, with the Debian package mount")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False)
    if done.returncode:
        pytest.skip("this machine does not let its root mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607 - of the same package
