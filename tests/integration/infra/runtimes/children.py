"""nvForest's CPU class in child processes of the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from skewless.infra.runtimes.candidates import RuntimeCandidate
from skewless.infra.runtimes.child import ChildRuntime
from tests.worlds.waiting import is_alive, until

FOLDER = Path(f"{sys.prefix}-nvforest")
ENVIRONMENT = {"PYTHONPATH": str(FOLDER)}
ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="nvForest is for Linux alone")


def is_there() -> bool:
    """Say whether `make setup-nvforest` was run."""
    return (FOLDER / "nvforest").is_dir()


def open_child(algorithm: str, path: Path, timeout_s: float = 60.0) -> ChildRuntime:
    assert is_there(), "run `make setup-nvforest`"
    return ChildRuntime(algorithm, path, "cpu", timeout_s=timeout_s, environment=ENVIRONMENT)


@contextmanager
def child_of(algorithm: str, path: Path, timeout_s: float = 60.0) -> Iterator[ChildRuntime]:
    child = open_child(algorithm, path, timeout_s)
    try:
        yield child
    finally:
        child.close()


def candidate(algorithm: str, path: Path) -> RuntimeCandidate:
    return RuntimeCandidate(name="nvforest-cpu", open=lambda: open_child(algorithm, path), reopens=True)


def wait_for(process: int) -> None:
    """Return once a process is gone."""
    until(lambda: not is_alive(process))


def children_of(parent: int) -> set[int]:
    """Return the running processes that score for a process."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            of = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            scores = b"skewless.infra.runtimes.child\0" in (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if of == parent and scores:
            found.add(int(entry.name))
    return found


def open_files() -> int:
    """Return the number of descriptors of this process; threads of earlier tests may close some."""
    return len(list(Path("/proc/self/fd").iterdir()))


def mapped() -> int:
    """Return how many memories this process shares with children."""
    return Path("/proc/self/maps").read_text().count("memfd:skewless")
