"""Whatever durable step a compaction of the prediction log is killed at, every prediction is there once, as it was."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from skewless.infra.predictions.files import DAY_US, add_proven, merged_name, proven_files

from skewless.infra.storage.project_state import ProjectState
from tests.reliability.merge_kills import SIDES, kill_everywhere
from tests.unit.infra.predictions.merges import (
    DAY,
    GRACE_S,
    RowsByKey,
    ids_in,
    merge,
    names,
    seen,
    standing,
    stored,
    write,
)

LATER_S = GRACE_S + 60
MERGED = [merged_name(DAY, 0), merged_name(DAY, 1), merged_name(DAY + DAY_US, 0)]


@pytest.fixture(scope="module")
def merged_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days of two formats; of the first one some is proven."""
    state = tmp_path_factory.mktemp("log") / "state"
    proven = [write(state, day=0, seed=seed, form=seed % 2 * 2 + 1) for seed in range(4)][1::2]
    for seed in range(4, 6):
        write(state, day=1, seed=seed)
    write(state, day=200, seed=6)
    add_proven(ProjectState(state), [path.name for path in proven])
    return state


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a log holds, for whatever reads it, and the ids that are proven."""

    stored: RowsByKey
    seen: Mapping[tuple[str, str], tuple[Any, ...]]
    proven: frozenset[str]

    @classmethod
    def of(cls, state: Path) -> Expected:
        proven = [
            name for path in names(state) if path in proven_files(ProjectState(state)) for name in ids_in(state, path)
        ]
        return cls(stored=stored(state), seen=seen(state), proven=frozenset(proven))

    def check(self, state: Path, where: str) -> None:
        """All is there once, and no more is proven than was."""
        assert stored(state) == self.stored, where
        assert seen(state) == self.seen, where
        for name in set(names(state)) & proven_files(ProjectState(state)):
            assert ids_in(state, name) <= self.proven, where


def finish(state: Path) -> None:
    """Let the next nights' housekeeping do the rest."""
    for _ in range(2):
        merge(state)
        merge(state, later_s=LATER_S)
    add_proven(ProjectState(state), [])


@pytest.mark.parametrize("step", ["merge", "remove"])
def test_a_kill_at_any_durable_step_changes_no_answer(merged_log: Path, tmp_path: Path, step: str) -> None:
    state = tmp_path / "state"
    shutil.copytree(merged_log, state)
    held = Expected.of(merged_log)
    if step == "remove":
        merge(state)
    points = kill_everywhere(state, tmp_path / "out", 0 if step == "merge" else LATER_S)
    kinds = {point.partition("#")[0] for point in points}
    expected = {"link-merged", "sync-draft", "sync-log"} if step == "merge" else {"unlink-source"}
    assert expected | {"store-proven", "sync-log"} <= kinds
    assert sum(point.startswith("unlink-source") for point in points) == (6 if step == "remove" else 0)
    finish(state)
    for point in points:
        for side in SIDES:
            killed, where = tmp_path / "out" / point / side, f"{step}, killed {side} {point}"
            held.check(killed, where)
            finish(killed)
            held.check(killed, where)
            assert standing(killed) == standing(state), where
            assert set(standing(killed)) >= set(MERGED), where
            assert proven_files(ProjectState(killed)) == proven_files(ProjectState(state)) != frozenset(), where
