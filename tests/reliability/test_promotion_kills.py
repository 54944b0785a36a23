"""A training that is killed leaves no half package, and a promotion that is killed leaves one champion."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from skewless.infra.models.packages.package import open_package
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.storage.project_state import DATABASE_FILE, ProjectState
from skewless.infra.platform.storage.schema import copy_tables
from skewless.training.promotion import CHAMPION
from tests.reliability.kills import ROOT, SIDES, Case, Hits, Victims, kind_of, table_of, victims
from tests.reliability.promotion_kills import MODEL, order_of, promote_again, store_of
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.trained import copy_project, move_project, state_of

KINDS = {
    "sync-packages",
    "sync-folder",
    "rename-packages",
    "commit-decision",
    "commit-alias_move",
    "commit-trusted_key",
}
STORED = {"upload-packages", "link-cache", "sync-cache", "replace-cache", "commit-package"}
_NEW = 3  # versions that one case can have written; those before were looked at then


@pytest.fixture
def state(trained: Path, tmp_path: Path, addresses: ProjectAddresses) -> ProjectState:
    """A project with one version; its packages are in the storage, if there is one."""
    source = ProjectState(copy_project(trained, tmp_path / "p") / ".skewless")
    source.database.close()  # so that the file has all rows
    state = addresses.state(tmp_path / "state")
    shutil.copytree(source / "packages", state / "packages")
    for name in ("signing_key.pem", *(() if addresses.is_shared else (DATABASE_FILE,))):
        shutil.copy2(source / name, state.folder)
    if addresses.is_shared:
        packages = store_of(state).packages
        state.database.upgrade()
        copy_tables(source.database, state.database)
        for (model, version), files in packages.upload_all().items():
            packages.register(model, version, files)
    return state


@pytest.fixture(scope="module")
def dying(addresses: ProjectAddresses) -> Iterator[Victims]:  # noqa: ARG001 - sets the credentials of new processes
    with victims("tests.reliability.promotion_kills") as running:
        yield running


def consistent(store: PackageStore) -> None:
    """After any kill: every listed version is complete, and every move and decision names a version."""
    versions = store.packages.list_versions(MODEL)
    for version in versions[-_NEW:]:
        open_package(store, MODEL, version)
    moves = store.aliases.history(MODEL, CHAMPION)
    assert [move.number for move in moves] == list(range(1, len(moves) + 1))
    assert {move.to for move in moves} <= set(versions)
    assert [move.expect for move in moves] == [None, *(move.to for move in moves[:-1])]
    decided = {decision["version"] for decision in store.decisions.read_latest_first(MODEL)}
    assert {move.to for move in moves} <= decided <= set(versions)


def kill_at(state: ProjectState, addresses: ProjectAddresses, dying: Victims, cases: Sequence[Case]) -> Hits:
    """Kill one promotion per case and let the next one succeed; return which kinds of steps were hit, how often."""
    hit, store = Hits(), store_of(state)
    for point, side in cases:
        before = len(store.packages.list_versions(MODEL))
        hit[kind_of(point), side] += dying.killed(point, side, **order_of(state.folder, addresses))
        consistent(store)
        assert len(store.packages.list_versions(MODEL)) - before in {0, 1}
        version = promote_again(store)
        consistent(store)
        assert store.aliases.get(MODEL, CHAMPION) == version
        left = [path.name for path in state.folder.rglob("*") if path.name.startswith(".new-")]
        assert left == [], f"after a kill {side} {point}"
    return hit


def begin(state: ProjectState, addresses: ProjectAddresses, dying: Victims) -> list[str]:
    """Return the points of a promotion."""
    found = dying.points(**order_of(state.folder, addresses))
    assert set(map(kind_of, found)) == KINDS | (STORED if addresses.is_shared else set())
    return found


def test_promotions_are_killed_around_the_package_the_decision_and_the_alias(
    state: ProjectState, addresses: ProjectAddresses, dying: Victims
) -> None:
    begin(state, addresses, dying)
    cases: list[Case] = [
        ("sync-packages#3", "before"),
        ("rename-packages#1", "before"),
        ("rename-packages#1", "after"),
        ("commit-decision#1", "after"),
        ("commit-alias_move#1", "before"),
        ("commit-alias_move#1", "after"),
    ]
    assert kill_at(state, addresses, dying, cases).total() == len(cases)


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_promotions_are_killed_at_every_durable_step(
    state: ProjectState, addresses: ProjectAddresses, dying: Victims, tell: Callable[[str], None]
) -> None:
    seed = 6
    found = begin(state, addresses, dying)
    # On shared addresses each of the fifteen files has steps of its own, so that each kind is hit often anyway.
    cases = [(point, side) for point in found for side in SIDES] * (1 if addresses.is_shared else 3)
    random.Random(seed).shuffle(cases)
    hit = kill_at(state, addresses, dying, cases)
    tell(f"seed {seed}: {hit.total()} kills of a promotion, {len(found)} points\n{table_of(hit)}")
    assert hit.total() == len(cases) >= 100
    assert all(count >= (1 if addresses.is_shared else 3) for count in hit.values())


@pytest.mark.soak
@pytest.mark.timeout(3_600)
def test_trainings_are_killed_at_any_time(trained: Path, tmp_path: Path, addresses: ProjectAddresses) -> None:
    """The command itself, killed after ever another while; the last one is let through."""
    repo = move_project(copy_project(trained, tmp_path / "p"), addresses)
    command = [sys.executable, "-m", "skewless.cli", "train", "--repo", str(repo)]
    rng, state = random.Random(6), state_of(repo)
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
        for version in store_of(state).packages.list_versions(MODEL):
            open_package(store_of(state), MODEL, version)
    assert died >= 3
    before = store_of(state).packages.list_versions(MODEL)
    subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    assert len(store_of(state).packages.list_versions(MODEL)) == len(before) + 1
    assert not list(state.folder.rglob(".new-*"))
