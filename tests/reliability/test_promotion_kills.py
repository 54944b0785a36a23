"""A training that is killed leaves no half package, and a promotion that is killed leaves one champion."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from skewless.infra.packages.package import open_package
from skewless.infra.storage.package_folder import PackageFolder
from skewless.infra.storage.project_state import DATABASE_FILE, ProjectState
from skewless.training.promotion import CHAMPION
from tests.reliability.kills import ROOT, Side
from tests.reliability.promotion_kills import MODEL, killed, points, promote_again, store_of
from tests.worlds.trained import copy_project

SIDES: tuple[Side, ...] = ("before", "after")
_NEW = 3  # versions that one case can have written; those before were looked at then


@pytest.fixture
def packages(trained: Path, tmp_path: Path) -> Path:
    ProjectState(trained / ".skewless").database.close()  # so that the file has all rows
    for key in ("signing_key.pem", DATABASE_FILE):
        shutil.copy2(trained / ".skewless" / key, tmp_path)
    return Path(shutil.copytree(trained / ".skewless/packages", tmp_path / "packages"))


def consistent(packages: Path) -> None:
    """After any kill: every listed version is complete, and every move and decision names a version."""
    versions = PackageFolder(packages).list_versions(MODEL)
    for version in versions[-_NEW:]:
        open_package(store_of(packages), MODEL, version)
    moves = store_of(packages).aliases.history(MODEL, CHAMPION)
    assert [move.number for move in moves] == list(range(1, len(moves) + 1))
    assert {move.to for move in moves} <= set(versions)
    assert [move.expect for move in moves] == [None, *(move.to for move in moves[:-1])]
    decided = {decision["version"] for decision in store_of(packages).decisions.read_latest_first(MODEL)}
    assert {move.to for move in moves} <= decided <= set(versions)


def kill_at(packages: Path, cases: Sequence[tuple[str, Side]]) -> Counter[tuple[str, Side]]:
    """Kill one promotion per case and let the next one succeed; return which kinds of steps were hit, how often."""
    hit: Counter[tuple[str, Side]] = Counter()
    for point, side in cases:
        before = len(PackageFolder(packages).list_versions(MODEL))
        if killed(packages, point, side):
            hit[point.partition("#")[0], side] += 1
        consistent(packages)
        assert len(PackageFolder(packages).list_versions(MODEL)) - before in {0, 1}
        version = promote_again(packages)
        consistent(packages)
        assert store_of(packages).aliases.get(MODEL, CHAMPION) == version
        left = [path.name for path in packages.rglob("*") if path.name.startswith(".new-")]
        assert left == [], f"after a kill {side} {point}"
    return hit


def test_promotions_are_killed_around_the_package_the_decision_and_the_alias(packages: Path) -> None:
    found = points(packages)
    assert {point.partition("#")[0] for point in found} == {
        "sync-file",
        "sync-folder",
        "rename-package",
        "append-decision",
        "append-alias_move",
    }
    cases: list[tuple[str, Side]] = [
        ("sync-file#3", "before"),
        ("rename-package#1", "before"),
        ("rename-package#1", "after"),
        ("append-decision#1", "after"),
        ("append-alias_move#1", "before"),
        ("append-alias_move#1", "after"),
    ]
    assert sum(kill_at(packages, cases).values()) == len(cases)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_promotions_are_killed_at_every_durable_step(packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = 6
    found = points(packages)
    cases = [(point, side) for point in found for side in SIDES] * 3
    random.Random(seed).shuffle(cases)
    hit = kill_at(packages, cases)
    with capsys.disabled():
        rows = (f"  {name:26} {side:7} {count}" for (name, side), count in sorted(hit.items()))
        sys.stdout.write("\n".join([f"\n{len(cases)} kills of a promotion, seed {seed}", *rows, ""]))
    assert sum(hit.values()) == len(cases) >= 100
    assert all(count >= 3 for count in hit.values())


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_trainings_are_killed_at_any_time(trained: Path, tmp_path: Path) -> None:
    """The command itself, killed after ever another while; the last one is let through."""
    repo = copy_project(trained, tmp_path / "p")
    command = [sys.executable, "-m", "skewless.cli", "train", "--repo", str(repo)]
    rng, packages = random.Random(6), repo / ".skewless/packages"
    began = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    whole = time.monotonic() - began
    died = 0
    for _ in range(12):
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(whole * rng.uniform(0.3, 1.1))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            died += 1
        for version in PackageFolder(packages).list_versions(MODEL):
            open_package(store_of(packages), MODEL, version)
    assert died >= 3
    before = PackageFolder(packages).list_versions(MODEL)
    subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    assert len(PackageFolder(packages).list_versions(MODEL)) == len(before) + 1
    assert not list(packages.rglob(".new-*"))
