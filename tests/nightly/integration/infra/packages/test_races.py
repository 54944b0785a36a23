"""Packages and aliases among processes that race and are killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.infra.models.packages.package import open_package
from skewless.infra.models.packages.store import Aliases
from skewless.infra.platform.storage.database import Database
from skewless.infra.platform.storage.package_folder import PackageFolder
from tests.nightly.worlds.late_packages import write_late
from tests.servers.postgres import ON_SQLITE, address_of
from tests.worlds.packages import store_at

ROOT = Path(__file__).parents[5]
WRITE = """
import sys
from pathlib import Path
from tests.nightly.worlds.late_packages import write_late
sys.stdin.readline()
print(write_late(Path(sys.argv[1]), 5))
"""
MOVE = """
import sys
from pathlib import Path
from skewless.contract.errors import ConflictError
from tests.worlds.packages import store_at
root = Path(sys.argv[1])
sys.stdin.readline()
me, wins, aliases = sys.argv[2], 0, store_at(root, database_url=sys.argv[3]).aliases
for turn in range(20):
    held = aliases.get("late", "champion")
    try:
        aliases.move("late", "champion", expect=held, to=me, reason=f"{me} {turn}", now_us=turn)
        wins += 1
    except ConflictError as conflict:
        assert "is held by version" in str(conflict), conflict
print(wins)
"""
# Forks for each order, so that a kill costs no start.
KILLED = """
import os
import sys
from pathlib import Path
from tests.nightly.worlds.late_packages import write_late
from tests.worlds.packages import store_at
def write(root, step):
    calls, real = [0], os.fsync
    def fsync(descriptor):
        calls[0] += 1
        if calls[0] == step:
            os.kill(os.getpid(), 9)
        real(descriptor)
    os.fsync = fsync
    write_late(root)
    store_at(root).aliases.move("late", "champion", expect=None, to="000001", reason="r", now_us=1)
for line in sys.stdin:
    step, place = line.split(maxsplit=1)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            write(Path(place.strip()), int(step))
            code = 0
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def start(script: str, *args: str) -> subprocess.Popen[str]:
    """Start a process that waits for a line before it races."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *args], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def killed_writers() -> Iterator[subprocess.Popen[str]]:
    """A process whose children die at a chosen write."""
    process = start(KILLED)
    with process:
        yield process


def write_until(killed_writers: subprocess.Popen[str], root: Path, step: int) -> int:
    """Let a child write a package until its n-th write; return its exit code."""
    assert killed_writers.stdin is not None
    assert killed_writers.stdout is not None
    killed_writers.stdin.write(f"{step} {root}\n")
    killed_writers.stdin.flush()
    return int(killed_writers.stdout.readline())


def race(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Let all go at once and return what each printed."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return answers


def test_writers_that_race_get_versions_of_their_own(tmp_path: Path) -> None:
    answers = race([start(WRITE, str(tmp_path)) for _ in range(2)])
    versions = sorted(version for answer in answers for version in json.loads(answer.replace("'", '"')))
    assert versions == PackageFolder(tmp_path).list_versions("late") == [f"{number:06d}" for number in range(1, 11)]
    for version in versions:
        assert open_package(store_at(tmp_path), "late", version).version == version


@ON_SQLITE
def test_of_two_moves_from_the_same_version_one_wins(tmp_path: Path, project_database: Database) -> None:
    write_late(tmp_path, 2)
    address = address_of(project_database)
    answers = race([start(MOVE, str(tmp_path), f"00000{number}", address) for number in (1, 2)])
    history = Aliases(PackageFolder(tmp_path), project_database).history("late", "champion")
    assert len(history) == sum(map(int, answers))
    assert [move.number for move in history] == list(range(1, len(history) + 1))
    assert [move.expect for move in history] == [None, *(move.to for move in history[:-1])]


def test_a_kill_at_any_write_leaves_all_or_nothing(tmp_path: Path, killed_writers: subprocess.Popen[str]) -> None:
    killed, step = 0, 0
    while True:
        step += 1
        root = tmp_path / str(step)
        code = write_until(killed_writers, root, step)
        for version in PackageFolder(root).list_versions("late"):
            assert open_package(store_at(root), "late", version).metrics == {}
        holder = store_at(root).aliases.get("late", "champion")
        assert holder in {None, "000001"}
        if code == 0:
            break
        assert code == -signal.SIGKILL
        killed += 1
    assert killed > 15
    assert holder == "000001"


def test_a_writer_goes_on_after_a_killed_one(tmp_path: Path, killed_writers: subprocess.Popen[str]) -> None:
    store_at(tmp_path).check_signer()
    assert write_until(killed_writers, tmp_path, 5) == -signal.SIGKILL
    assert any(path.name.startswith(".new-") for path in (tmp_path / "late").iterdir())
    write_late(tmp_path, 5)
    assert len(PackageFolder(tmp_path).list_versions("late")) == 5
    assert not any(path.name.startswith(".new-") for path in (tmp_path / "late").iterdir())
