"""A kill at any durable step of shipping, compaction or deletion: every prediction is in the log once, unchanged."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skewless.infra.log.catalog import Catalog
from skewless.infra.predictions.segments import PREDICTIONS, prediction_spool
from skewless.infra.storage.project_state import ProjectState
from tests.reliability.merge_kills import ACTIONS, SIDES, kill_everywhere
from tests.unit.infra.predictions.merges import (
    RowsByKey,
    delete_objects,
    merge,
    objects,
    prove,
    proven_ids,
    seen,
    segments,
    spool_record,
    stored,
    write,
)
from tests.unit.infra.predictions.records import origin, record

KINDS = {
    "ship": {"link-predictions", "sync-predictions", "commit-log_partitions-segments-shipped_files", "unlink-spool"},
    "merge": {"link-log", "sync-log", "unlink-staging", "commit-segments-removed_objects"},
    "delete": {"unlink-predictions", "commit-removed_objects"},
}
IN_THE_FUTURE_US = 2**60


@pytest.fixture(scope="module")
def merged_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days in two formats; some rows of the first day are proven, and some files are not shipped."""
    state = ProjectState(tmp_path_factory.mktemp("log") / "state")
    prove(state, [write(state, day=0, seed=seed, form=seed % 2 * 2 + 1) for seed in range(4)][:2])
    for seed in range(4, 6):
        write(state, day=1, seed=seed)
    write(state, day=200, seed=6)
    for seed in range(7, 10):
        spool_record(state, record(origin(), 3, seed))
    state.database.close()
    return state.folder


@dataclass(frozen=True, kw_only=True)
class MergedRows:
    """The rows of a log, for each of its readers, and the ids that are proven."""

    stored: RowsByKey
    seen: Mapping[tuple[str, str], tuple[Any, ...]]
    proven: set[str]

    @classmethod
    def of(cls, folder: Path) -> MergedRows:
        state = ProjectState(folder)
        prediction_spool(state).ship()
        rows = cls(stored=stored(state), seen=seen(state), proven=proven_ids(state))
        state.database.close()
        return rows


def complete(folder: Path) -> set[tuple[int, int]]:
    """Let the next housekeepings do the rest; return the segments' positions. No other object is left."""
    state = ProjectState(folder)
    for _ in range(2):
        merge(state)
        delete_objects(state)
    catalog = Catalog(state.database)
    for name in (PREDICTIONS, f"log/{PREDICTIONS}", "staging"):
        state.storage.delete(catalog.find_orphans(state.storage, name, IN_THE_FUTURE_US))
    assert objects(state) == {segment.stored.name for segment in segments(state)}
    assert prediction_spool(state).waiting() == []
    left = {(segment.first, segment.last) for segment in segments(state)}
    state.database.close()
    return left


@pytest.mark.parametrize("action", list(ACTIONS))
def test_a_kill_at_any_durable_step_changes_no_answer(merged_log: Path, tmp_path: Path, action: str) -> None:
    folder = tmp_path / "state"
    shutil.copytree(merged_log, folder)
    if action == "delete":
        state = ProjectState(folder)
        merge(state)
        state.database.close()
    points = kill_everywhere(folder, tmp_path / "out", action)
    assert {point.partition("#")[0] for point in points} >= KINDS[action]
    expected = MergedRows.of(folder)
    assert len(expected.stored) == 30
    assert len(expected.proven) == 6
    left = complete(folder)
    for point in points:
        for side in SIDES:
            killed, where = tmp_path / "out" / point / side, f"{action}, killed {side} {point}"
            assert MergedRows.of(killed) == expected, where
            assert complete(killed) == left, where
            assert MergedRows.of(killed) == expected, where
