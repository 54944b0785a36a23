"""Small files of days that are over become one: no bit changes, each row is there once, and what is proven stays so."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from skewless.infra.log.inventory import Inventory
from skewless.infra.predictions.compaction import compact
from skewless.infra.predictions.files import DAY_US, FOLDER, add_proven, merged_from, merged_name, proven_files

from skewless.contract.errors import StoreError
from skewless.infra.predictions import compaction
from skewless.infra.predictions.reader import PredictionLog
from skewless.infra.storage import durable
from skewless.infra.storage.project_state import ProjectState
from tests.unit.infra.predictions.merges import (
    DAY,
    GRACE_S,
    ODD,
    ids_in,
    merge,
    names,
    rows_in,
    seen,
    seen_by,
    standing,
    stored,
    write,
)

FIRST, SECOND = merged_name(DAY, 0), merged_name(DAY, 1)
NEXT_DAY = merged_name(DAY + DAY_US, 0)


def test_files_of_days_that_are_over_become_one_each(tmp_path: Path) -> None:
    first = [write(tmp_path, day=0, seed=seed).name for seed in range(4)]
    for seed in range(4, 7):
        write(tmp_path, day=1, seed=seed, version="000002")
    today = [write(tmp_path, day=2, seed=seed).name for seed in range(7, 9)]
    before, read = stored(tmp_path), seen(tmp_path)
    assert merge(tmp_path, day=0) == 0
    assert merge(tmp_path, day=2) == 7
    assert names(tmp_path) == [FIRST, NEXT_DAY, *today]
    assert merged_from(tmp_path / FOLDER / FIRST) == first
    assert (stored(tmp_path), seen(tmp_path)) == (before, read)
    assert len(read) == 9 * 3
    assert merge(tmp_path, day=2) == 0


def test_sources_go_after_the_grace_time(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, day=0, seed=seed)
    before = stored(tmp_path)
    merge(tmp_path)
    merge(tmp_path, later_s=GRACE_S / 2)
    assert len(standing(tmp_path)) == 4
    merge(tmp_path, later_s=GRACE_S + 10)
    assert standing(tmp_path) == [FIRST]
    assert stored(tmp_path) == before
    assert merge(tmp_path, later_s=GRACE_S + 10) == 0


def test_a_reader_that_was_made_before_reads_on(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, day=0, seed=seed)
    with duckdb.connect() as connection:
        log = PredictionLog(tmp_path / FOLDER, connection)
        expected = seen(tmp_path)
        merge(tmp_path)
        merge(tmp_path)
        assert len(log.names) == 3
        assert seen_by(log) == expected


def test_odd_numbers_keep_their_bits(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, day=0, seed=seed)
    merge(tmp_path)
    vectors = pq.ParquetFile(tmp_path / FOLDER / FIRST).read()["vector"].combine_chunks().flatten().to_numpy()
    assert np.array_equal(vectors.view(np.uint64).reshape(6, 5)[[0, 3], : len(ODD)], [ODD, ODD])


def test_formats_are_merged_apart(tmp_path: Path) -> None:
    for seed, form in enumerate((1, 3, 2, 1, 3, 2, 3)):
        write(tmp_path, day=0, seed=seed, form=form)
    before, read = stored(tmp_path), seen(tmp_path)
    assert merge(tmp_path) == 7
    assert len(names(tmp_path)) == 3
    assert (stored(tmp_path), seen(tmp_path)) == (before, read)
    assert sorted(row[3] for row in read.values()) == [1] * 6 + [2] * 6 + [3] * 9


def test_a_merged_file_is_a_readers_piece_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "BATCH_ROWS", 10)
    sizes = (4, 4, 4, 11, 6, 3, 9, 1, 1)
    paths = [write(tmp_path, day=0, seed=seed, n=n) for seed, n in enumerate(sizes)]
    before = stored(tmp_path)
    assert merge(tmp_path) == 6
    assert [rows_in(tmp_path, name) for name in names(tmp_path)] == [8, 9, 10, 4, 11, 1]
    assert {paths[2].name, paths[3].name, paths[8].name} < set(names(tmp_path))
    assert stored(tmp_path) == before


def test_what_comes_late_is_merged_by_itself(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, day=0, seed=seed)
    merge(tmp_path)
    first = (tmp_path / FOLDER / FIRST).read_bytes()
    late = write(tmp_path, day=0, seed=2)
    assert merge(tmp_path) == 0
    assert names(tmp_path) == [FIRST, late.name]
    write(tmp_path, day=0, seed=3)
    before = stored(tmp_path)
    assert merge(tmp_path) == 2
    assert (names(tmp_path), stored(tmp_path)) == ([FIRST, SECOND], before)
    assert (tmp_path / FOLDER / FIRST).read_bytes() == first
    merge(tmp_path, later_s=GRACE_S + 10)
    assert standing(tmp_path) == [FIRST, SECOND]


def test_files_of_other_names_are_left_alone(tmp_path: Path) -> None:
    for seed, name in enumerate(("0-first.parquet", f"{DAY:020d}-copy.parquet")):
        path = write(tmp_path, day=0, seed=seed)
        Inventory(tmp_path / FOLDER).remove_entries([path.name])
        path.rename(tmp_path / FOLDER / name)
    before = stored(tmp_path)
    assert merge(tmp_path, later_s=GRACE_S + 10) == 0
    assert (len(names(tmp_path)), stored(tmp_path)) == (2, before)


def test_a_project_without_a_log_has_nothing_to_merge(tmp_path: Path) -> None:
    assert merge(tmp_path) == 0
    assert list(tmp_path.iterdir()) == []


def test_proven_is_not_merged_with_unproven(tmp_path: Path) -> None:
    paths = [write(tmp_path, day=0, seed=seed) for seed in range(5)]
    add_proven(ProjectState(tmp_path), [path.name for path in (paths[0], paths[1], paths[3])])
    merge(tmp_path)
    proven = {name: name in proven_files(ProjectState(tmp_path)) for name in names(tmp_path)}
    assert sorted(proven.values()) == [False, True]
    for name, is_proven in proven.items():
        assert {item.partition("-")[0] for item in ids_in(tmp_path, name)} == set("013" if is_proven else "24")
    with duckdb.connect() as connection:
        log = PredictionLog(tmp_path / FOLDER, connection, without=proven_files(ProjectState(tmp_path)))
        assert {item.partition("-")[0] for item, _ in seen_by(log)} == set("24")
        add_proven(ProjectState(tmp_path), log.names)
    merge(tmp_path, later_s=GRACE_S + 10)
    assert proven_files(ProjectState(tmp_path)) > {FIRST, SECOND} == set(standing(tmp_path))
    add_proven(ProjectState(tmp_path), [])
    assert proven_files(ProjectState(tmp_path)) == {FIRST, SECOND}


def test_sources_that_are_proven_after_the_merge_prove_the_merged_file(tmp_path: Path) -> None:
    paths = [write(tmp_path, day=0, seed=seed) for seed in range(2)]
    merge(tmp_path)
    add_proven(ProjectState(tmp_path), [paths[0].name])
    merge(tmp_path)
    assert FIRST not in proven_files(ProjectState(tmp_path))
    add_proven(ProjectState(tmp_path), [paths[1].name])
    merge(tmp_path, later_s=GRACE_S + 10)
    assert proven_files(ProjectState(tmp_path)) >= {FIRST}
    assert standing(tmp_path) == [FIRST]


def test_a_name_that_is_used_again_is_not_proven(tmp_path: Path) -> None:
    old = [write(tmp_path, day=0, seed=seed).name for seed in range(2)]
    add_proven(ProjectState(tmp_path), old)
    merge(tmp_path)
    assert FIRST in proven_files(ProjectState(tmp_path))
    for path in (tmp_path / FOLDER).glob("*.parquet"):
        Inventory(tmp_path / FOLDER).remove_entries([path.name])
        path.unlink()
    for seed in range(2, 4):
        write(tmp_path, day=0, seed=seed)
    merge(tmp_path)
    assert names(tmp_path) == [FIRST]
    assert proven_files(ProjectState(tmp_path)) == frozenset()


def test_of_several_at_once_one_merges(tmp_path: Path) -> None:
    for seed in range(12):
        write(tmp_path, day=seed % 3, seed=seed)
    before = stored(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        merged = [pool.submit(merge, tmp_path) for _ in range(8)]
    assert sum(each.result() for each in merged) == 12
    assert len(names(tmp_path)) == 3
    assert stored(tmp_path) == before


def test_another_machine_that_is_faster_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        write(tmp_path, day=0, seed=seed)
    before, real = stored(tmp_path), durable.create_durable

    def overtaken(path: Path, data: bytes) -> None:
        monkeypatch.setattr(compaction, "create_durable", real)
        (tmp_path / FOLDER / ".compact.lock").unlink()
        write(tmp_path, day=0, seed=3)
        assert merge(tmp_path) == 4
        real(path, data)

    monkeypatch.setattr(compaction, "create_durable", overtaken)
    assert merge(tmp_path) == 0
    assert names(tmp_path) == [FIRST]
    after = stored(tmp_path)
    assert len(after) == 4 * 3
    assert {key: after[key] for key in before} == before


def test_what_is_removed_meanwhile_is_not_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        write(tmp_path, day=0, seed=seed)
    last = write(tmp_path, day=0, seed=3)
    real = compaction._read

    def removed(path: Path) -> Any:  # noqa: ANN401 - a table
        Inventory(last.parent).remove_entries([last.name])
        last.unlink(missing_ok=True)
        return real(path)

    monkeypatch.setattr(compaction, "_read", removed)
    assert merge(tmp_path) == 0
    assert len(stored(tmp_path)) == 9


def test_leftovers_of_the_killed_go_after_the_grace_time(tmp_path: Path) -> None:
    write(tmp_path, day=0, seed=0)
    for name in ("00000000000000000001-3f2a91c07b5d-000004.tmp", f".{FIRST}.0a.tmp"):
        (tmp_path / FOLDER / name).touch()
    merge(tmp_path, later_s=GRACE_S / 2)
    assert len(standing(tmp_path)) == 3
    merge(tmp_path, later_s=GRACE_S + 10)
    assert len(standing(tmp_path)) == 1


@pytest.mark.parametrize("damaged", ["source", "merged"])
def test_a_damaged_file_is_named_and_nothing_is_lost(tmp_path: Path, damaged: str) -> None:
    paths = [write(tmp_path, day=0, seed=seed) for seed in range(3)]
    if damaged == "merged":
        merge(tmp_path)
        paths.append(tmp_path / FOLDER / FIRST)
    paths[-1].write_bytes(paths[-1].read_bytes()[:-9])
    there = standing(tmp_path)
    with pytest.raises(StoreError, match=paths[-1].name):
        merge(tmp_path, later_s=GRACE_S + 10)
    assert standing(tmp_path) == there
    if damaged == "merged":
        with pytest.raises(StoreError, match=FIRST):
            names(tmp_path)


def test_days_are_those_of_the_projects_clock(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, day=0, seed=seed)
    last = DAY + DAY_US - 1
    assert compact(ProjectState(tmp_path), now_us=last, grace_s=0, clock=time.time) == 0
    assert compact(ProjectState(tmp_path), now_us=last + 1, grace_s=GRACE_S, clock=time.time) == 2
