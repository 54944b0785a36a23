"""A kill at any durable step of shipping, compaction or deletion: every prediction is in the log once, unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skewless.infra.log.catalog import Catalog
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.segments import PREDICTIONS, prediction_spool
from tests.nightly.reliability.merge_kills import ACTIONS, order_of
from tests.reliability.kills import SIDES, Case, Hits, Victims, ends_of_each_kind, kind_of, table_of, victims
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
from tests.worlds.addresses import ProjectAddresses, copy_state

KINDS = {
    "defaults": {
        "ship": {"link-object", "sync-object", "commit-log_partitions-segments-shipped_files", "unlink-spool"},
        "merge": {"link-object", "sync-object", "unlink-staging", "commit-segments-removed_objects"},
        "delete": {"unlink-object", "commit-removed_objects"},
    },
    "shared": {
        "ship": {"upload-predictions", "replace-cache", "commit-log_partitions-segments-shipped_files", "unlink-spool"},
        "merge": {"upload-log", "replace-cache", "unlink-staging", "commit-segments-removed_objects"},
        "delete": {"delete-objects", "commit-removed_objects"},
    },
}
IN_THE_FUTURE_US = 2**60


@pytest.fixture(scope="module")
def merged_log(tmp_path_factory: pytest.TempPathFactory, addresses: ProjectAddresses) -> ProjectState:
    """Two days; some rows of the first day are proven, and some files are not shipped."""
    state = addresses.state(tmp_path_factory.mktemp("log") / "state")
    prove(state, [write(state, day=0, seed=seed) for seed in range(4)][:2])
    for seed in range(4, 6):
        write(state, day=1, seed=seed)
    write(state, day=200, seed=6)
    for seed in range(7, 10):
        spool_record(state, record(origin(), 3, seed))
    state.database.close()
    return state


@pytest.fixture(scope="module")
def dying(addresses: ProjectAddresses) -> Iterator[Victims]:  # noqa: ARG001 - sets the credentials of new processes
    with victims("tests.nightly.reliability.merge_kills") as running:
        yield running


@dataclass(frozen=True, kw_only=True)
class MergedRows:
    """The rows of a log, for each of its readers, and the ids that are proven."""

    stored: RowsByKey
    seen: Mapping[tuple[str, str], tuple[Any, ...]]
    proven: set[str]

    @classmethod
    def of(cls, state: ProjectState) -> MergedRows:
        prediction_spool(state).ship()
        rows = cls(stored=stored(state), seen=seen(state), proven=proven_ids(state))
        state.database.close()
        return rows


def complete(state: ProjectState) -> set[tuple[int, int]]:
    """Let the next housekeepings do the rest; return the segments' positions. No other object is left."""
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


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize(
    ("action", "everywhere"),
    [("ship", False), ("delete", False), *(pytest.param(each, True, marks=pytest.mark.soak) for each in ACTIONS)],
)
def test_a_kill_at_any_durable_step_changes_no_answer(
    merged_log: ProjectState,
    addresses: ProjectAddresses,
    dying: Victims,
    tmp_path: Path,
    action: str,
    tell: Callable[[str], None],
    *,
    everywhere: bool,
) -> None:
    """At the first and the last step of each kind, before one and after the next; in the soak on both sides of all."""
    source = addresses.state(tmp_path / "source")
    copy_state(merged_log, source)
    if action == "delete":
        merge(source)
    whole = addresses.state(tmp_path / "whole")
    copy_state(source, whole)
    points = dying.points(**order_of(whole.folder, addresses, action))
    assert set(map(kind_of, points)) >= KINDS["shared" if addresses.is_shared else "defaults"][action]
    expected = MergedRows.of(whole)
    assert len(expected.stored) == 30
    assert len(expected.proven) == 6
    left, hit = complete(whole), Hits()
    cases: list[Case] = [(point, SIDES[number % 2]) for number, point in enumerate(ends_of_each_kind(points))]
    if everywhere:
        cases = [(point, side) for point in points for side in SIDES]
    for point, side in cases:
        killed, where = addresses.state(tmp_path / point / side), f"{action}, killed {side} {point}"
        copy_state(source, killed)
        assert dying.killed(point, side, **order_of(killed.folder, addresses, action)), where
        hit[kind_of(point), side] += 1
        assert MergedRows.of(killed) == expected, where
        assert complete(killed) == left, where
        assert MergedRows.of(killed) == expected, where
    if addresses.is_shared:
        tell(f"{hit.total()} kills, {len(points)} points\n{table_of(hit)}")
