"""Segments of past days are merged: no bit changes, each row is there once, and proven rows stay proven."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import StoreError
from skewless.infra.log.reading import read_tables
from skewless.infra.platform.storage.objects import FolderStorage, StoredObject
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions import segments as module
from skewless.infra.records.predictions.reader import PredictionLog
from skewless.infra.records.predictions.segments import DAY_US, compact_predictions, remove_predictions
from tests.unit.infra.predictions.merges import (
    DAY,
    ODD,
    delete_objects,
    ids_in,
    merge,
    objects,
    path_of,
    prove,
    proven_ids,
    seen,
    seen_by,
    segments,
    spool_record,
    stored,
    write,
)
from tests.unit.infra.predictions.records import origin, record


@pytest.fixture
def state(tmp_path: Path) -> ProjectState:
    """The state of a project without a log."""
    return ProjectState(tmp_path)


def sizes(state: ProjectState) -> list[int]:
    return [segment.rows for segment in segments(state)]


def test_segments_of_past_days_become_one_each(state: ProjectState) -> None:
    for seed in range(4):
        write(state, day=0, seed=seed)
    for seed in range(4, 7):
        write(state, day=1, seed=seed, version="000002")
    today = [write(state, day=2, seed=seed) for seed in range(7, 9)]
    before, read = stored(state), seen(state)
    assert merge(state, day=0) == 0
    assert merge(state, day=2) == 7
    assert sizes(state) == [12, 9, 3, 3]
    assert segments(state)[2:] == today
    assert [segment.at_us // DAY_US - DAY // DAY_US for segment in segments(state)] == [0, 1, 2, 2]
    assert (stored(state), seen(state)) == (before, read)
    assert len(read) == 9 * 3
    assert merge(state, day=2) == 0


def test_a_reader_keeps_its_files_until_it_ends(state: ProjectState) -> None:
    sources = {write(state, day=0, seed=seed).stored.name for seed in range(3)}
    with duckdb.connect() as connection:
        log = PredictionLog(state, connection)
        expected = seen(state)
        merge(state)
        (merged,) = segments(state)
        assert module.open_prediction_log(state).catalog.delete_unread(state.storage) == 0
        assert seen_by(log) == expected
        assert objects(state) == sources | {merged.stored.name}
    assert delete_objects(state) == 3
    assert objects(state) == {merged.stored.name}
    assert seen(state) == expected


def test_odd_numbers_keep_their_bits(state: ProjectState) -> None:
    for seed in range(2):
        write(state, day=0, seed=seed)
    merge(state)
    (merged,) = segments(state)
    vectors = pq.ParquetFile(path_of(state, merged)).read()["vector"].combine_chunks().flatten().to_numpy()
    assert np.array_equal(vectors.view(np.uint64).reshape(6, 5)[[0, 3], : len(ODD)], [ODD, ODD])


def test_a_merged_segment_is_a_readers_batch_at_most(state: ProjectState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", 10)
    for seed, n in enumerate((4, 4, 4, 11, 6, 3, 9, 1, 1)):
        write(state, day=0, seed=seed, n=n)
    before = stored(state)
    assert merge(state) == 6
    assert sizes(state) == [8, 4, 11, 9, 10, 1]
    assert stored(state) == before


def test_predictions_that_are_shipped_late_are_merged_among_themselves(state: ProjectState) -> None:
    for seed in range(2):
        write(state, day=0, seed=seed)
    write(state, day=1, seed=2)
    merge(state)
    first, other = segments(state)
    late = write(state, day=0, seed=3)
    assert merge(state) == 0
    assert segments(state) == [first, other, late]
    write(state, day=0, seed=4)
    before = stored(state)
    assert merge(state) == 2
    assert (segments(state)[:2], sizes(state)[2:]) == ([first, other], [6])
    assert stored(state) == before


def test_what_waits_on_this_machine_is_merged_too(state: ProjectState) -> None:
    for seed in range(2):
        spool_record(state, record(origin(), 2, seed))
    assert merge(state) == 2
    assert sizes(state) == [4]


def test_a_project_without_a_log_has_nothing_to_merge(state: ProjectState) -> None:
    assert merge(state) == 0
    assert not objects(state)


def test_proven_and_unproven_rows_are_not_merged_together(state: ProjectState) -> None:
    old = [write(state, day=0, seed=seed) for seed in range(3)]
    prove(state)
    for seed in range(3, 5):
        write(state, day=0, seed=seed)
    assert merge(state) == 5
    assert [(segment.rows, segment.is_proven) for segment in segments(state)] == [(9, True), (6, False)]
    assert ids_in(state, segments(state)[0]) == {f"{seed}-{i}" for seed in range(len(old)) for i in range(3)}


def test_rows_that_are_proven_while_they_are_merged_are_proven(
    state: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [write(state, day=0, seed=seed) for seed in range(3)]
    real, marked = FolderStorage.verify, [sources, sources[:1]]

    def verify(storage: FolderStorage, item: StoredObject) -> None:
        if marked:
            prove(state, marked.pop())
        real(storage, item)

    monkeypatch.setattr(FolderStorage, "verify", verify)
    assert merge(state) == 3
    assert proven_ids(state) == {name for name, _ in stored(state)}


def test_of_several_processes_one_merges(state: ProjectState) -> None:
    for seed in range(12):
        write(state, day=seed // 4, seed=seed)
    before = stored(state)
    with ThreadPoolExecutor(4) as pool:
        merged = [pool.submit(merge, state) for _ in range(8)]
    assert sum(each.result() for each in merged) == 12
    assert sizes(state) == [12, 12, 12]
    assert stored(state) == before
    delete_objects(state)
    assert objects(state) == {segment.stored.name for segment in segments(state)}


def test_segments_that_are_removed_meanwhile_are_not_merged(
    state: ProjectState, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        write(state, day=0, seed=seed)

    def removed(*arguments: object) -> object:
        remove_predictions(state, DAY + DAY_US)
        return read_tables(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("skewless.infra.log.compaction.read_tables", removed)
    assert merge(state) == 0
    assert segments(state) == []
    delete_objects(state)
    assert not objects(state)


@pytest.mark.parametrize("is_merged", [True, False])
def test_an_altered_file_is_named_and_nothing_is_lost(state: ProjectState, *, is_merged: bool) -> None:
    for seed in range(3):
        write(state, day=0, seed=seed)
    if is_merged:
        merge(state)
        write(state, day=0, seed=3)
    path = path_of(state, segments(state)[0])
    path.write_bytes(path.read_bytes()[:-9])
    before = segments(state)
    with pytest.raises(StoreError, match=path.name):
        merge(state)
    assert segments(state) == before
    with pytest.raises(StoreError, match=path.name):
        seen(state)


def test_days_are_those_of_the_projects_clock(state: ProjectState) -> None:
    for seed in range(2):
        write(state, day=0, seed=seed)
    last = DAY + DAY_US - 1
    assert compact_predictions(state, last) == 0
    assert compact_predictions(state, last + 1) == 2


@pytest.mark.parametrize("is_merged", [True, False])
def test_predictions_are_removed_by_whole_days(state: ProjectState, *, is_merged: bool) -> None:
    for seed, day in enumerate((0, 0, 1, 1, 0)):
        write(state, day=day, seed=seed)
    if is_merged:
        merge(state)
    assert remove_predictions(state, DAY + DAY_US - 1) == 0
    assert remove_predictions(state, DAY + 2 * DAY_US - 1) == (2 if is_merged else 3)
    assert {name[0] for name, _ in stored(state)} == {"2", "3"}
    next_one = write(state, day=1, seed=9)
    assert next_one.first == 15
    assert {name[0] for name, _ in seen(state)} == {"2", "3", "9"}


def test_the_log_of_a_project_with_a_postgresql(postgres_url: str, tmp_path: Path) -> None:
    state = ProjectState(tmp_path, f"{postgres_url}{'&' if '?' in postgres_url else '?'}schema=merged_predictions")
    for seed in range(3):
        spool_record(state, record(origin(), 2, seed))
    write(state, day=0, seed=3)
    before = stored(state)
    assert merge(state) == 4
    assert (sizes(state), stored(state)) == ([9], before)
