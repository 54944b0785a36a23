"""SEMANTICS 1.4: whatever happens to the files of a log, a reader gets the written rows or an error with a name."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import StoreError
from skewless.contract.feedback import Outcome
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import KNOWN_AT, SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.objects import FolderStorage
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.outcomes.log import OUTCOMES, OutcomeLog, OutcomeWriter, compact_outcomes, outcome_spool
from skewless.infra.records.predictions.segments import (
    DAY_US,
    PREDICTIONS,
    compact_predictions,
    prediction_files,
    prediction_spool,
)
from skewless.infra.records.predictions.writer import PredictionWriter
from skewless.operations.health.checkup.project import check_logs
from tests.unit.infra.predictions.records import T, origin, record

BATCH, EVENTS = "batch/v-0123456789abcdef", "events/s/ab12cd/0"
Write = Callable[[ProjectState], None]
Read = Callable[[ProjectState], object]
Fault = Callable[[Path, random.Random], None]


def write_batches(state: ProjectState) -> None:
    log = PartitionLog(state, BATCH)
    for i in range(8):
        log.append(pa.table({"x": [i] * 5, "text": [f"text {i}"] * 5}))


def read_batches(state: ProjectState) -> object:
    """Read as offline views do."""
    files = PartitionLog(state, BATCH).files()
    return duckdb.execute("SELECT * FROM read_parquet($files) ORDER BY ALL", {"files": files}).fetchall()


def write_events(state: ProjectState) -> None:
    """Leave merged segments, and newer ones after them."""
    log = PartitionLog(state, EVENTS)
    for i in range(8):
        segment = log.append(pa.table({"x": [i] * 5}))
        log.record_end(segment.first, segment.last, 100 + i)
        if i in {2, 5}:
            compact(log, keep=1, target_rows=10)
            Catalog(state.database).delete_unread(state.storage)


def read_events(state: ProjectState) -> object:
    """Read as stream workers and backfills do; of files alone as windows do."""
    log = PartitionLog(state, EVENTS)
    rows = pa.concat_tables(log.read(columns=["x", SEQ, KNOWN_AT])).to_pylist()
    same = duckdb.execute(f"SELECT x, {SEQ} FROM read_parquet($f) ORDER BY {SEQ}", {"f": log.files()}).fetchall()
    assert [(row["x"], row[SEQ]) for row in rows] == same
    return rows


def write_predictions(state: ProjectState) -> None:
    """Write two days, of which the first one is merged."""
    for seed in range(6):
        log = PredictionWriter(
            prediction_spool(state), capacity=100, flush_seconds=60, on_drop=lambda n, why: pytest.fail(f"{n} {why}")
        )
        assert log.offer(record(origin(), 3, seed)._replace(t=T + seed // 4 * DAY_US))
        log.close()
        prediction_spool(state).ship()
    compact_predictions(state, T + DAY_US)


def read_predictions(state: ProjectState) -> object:
    tables = [pq.ParquetFile(path).read().replace_schema_metadata() for path in prediction_files(state)]
    return sorted(map(repr, pa.concat_tables(tables).to_pylist()))


def write_outcomes(state: ProjectState) -> None:
    writer = OutcomeWriter(outcome_spool(state))
    for i in range(6):
        writer.append([Outcome(prediction_id=f"p{i}", label=float(i), known_at=i)], received_at=i, source="http")


def read_outcomes(state: ProjectState) -> object:
    with duckdb.connect() as connection:
        return OutcomeLog(state, connection).latest(100).to_pylist()


KINDS: dict[str, tuple[Write, Read, str]] = {
    "batches": (write_batches, read_batches, BATCH),
    "events": (write_events, read_events, EVENTS),
    "predictions": (write_predictions, read_predictions, PREDICTIONS),
    "outcomes": (write_outcomes, read_outcomes, OUTCOMES),
}


def files_of(state: ProjectState, kind: str) -> list[Path]:
    """Return the files of the only log, in order."""
    return [state / segment.stored.name for segment in PartitionLog(state, KINDS[kind][2]).segments()]


def delete(path: Path, _: random.Random) -> None:
    path.unlink()


def delete_folder(path: Path, _: random.Random) -> None:
    shutil.rmtree(path.parent)


def cut(path: Path, luck: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: luck.randrange(path.stat().st_size)])


def empty(path: Path, _: random.Random) -> None:
    path.write_bytes(b"")


def flip(path: Path, luck: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[luck.randrange(len(data))] ^= 1 << luck.randrange(8)
    path.write_bytes(data)


def swap(path: Path, luck: random.Random) -> None:
    """Replace a file with another file of the log, as by a wrong copy."""
    path.write_bytes(luck.choice(sorted(path.parent.glob(f"*{path.suffix}"))).read_bytes())


def rot(path: Path, luck: random.Random) -> None:
    """Flip a bit as a disk does, without a change of the file's time."""
    stat = path.stat()
    flip(path, luck)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


FAULTS: tuple[Fault, ...] = (delete, delete_folder, cut, empty, flip, swap, rot)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, object]]:
    logs = {}
    for kind, (write, read, _) in KINDS.items():
        state = ProjectState(tmp_path_factory.mktemp(kind))
        with closing(state.database):
            write(state)
            logs[kind] = state.folder, read(state)
    return logs


def copy(source: Path, target: Path) -> ProjectState:
    return ProjectState(shutil.copytree(source, target, copy_function=shutil.copy2))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 30))])
@pytest.mark.parametrize("kind", KINDS)
def test_1_4_a_damaged_log_is_rejected_by_name_or_read_correctly(
    tmp_path: Path, written: dict[str, tuple[Path, object]], kind: str, seed: int
) -> None:
    source, expected = written[kind]
    luck, errors = random.Random(seed), list[tuple[str, str]]()
    for i, _ in enumerate(files_of(ProjectState(source), kind)):
        fault, state = luck.choice(FAULTS), copy(source, tmp_path / str(i))
        path = files_of(state, kind)[i]
        fault(path, luck)
        try:
            assert KINDS[kind][1](state) == expected, (fault.__name__, path)
        except StoreError as error:
            errors.append((error.thing, f"log file {path}" if fault is not delete_folder else error.thing))
    assert errors
    assert all(thing == expected_thing for thing, expected_thing in errors)


@pytest.mark.parametrize("fault", [rot, flip, cut, delete, delete_folder])
@pytest.mark.parametrize("kind", KINDS)
def test_1_4_the_doctor_names_each_file_that_has_changed(
    tmp_path: Path, written: dict[str, tuple[Path, object]], kind: str, fault: Fault
) -> None:
    state = copy(written[kind][0], tmp_path / "state")
    assert {finding.verdict for finding in check_logs(state)} == {"ok"}
    path = random.Random(kind).choice(files_of(state, kind))
    fault(path, random.Random(1))
    (finding,) = [finding for finding in check_logs(state) if finding.verdict == "fail"]
    assert finding.name == f"files of {kind if kind in {PREDICTIONS, OUTCOMES} else 'log'}"
    assert path.name in finding.detail or fault is delete_folder
    assert ".parquet" in finding.detail


def rewrite(path: Path, _: random.Random) -> None:
    """Leave a file that can be read, with other rows."""
    pq.write_table(pq.read_table(path).slice(1), path)


def merge_all(state: ProjectState, kind: str) -> int:
    """Merge the segments, as housekeeping does."""
    if kind == "predictions":
        return compact_predictions(state, T + 9 * DAY_US)
    return compact_outcomes(state) if kind == "outcomes" else compact(PartitionLog(state, EVENTS), keep=0).merged


@pytest.mark.parametrize("fault", [rot, flip, cut, delete, rewrite])
@pytest.mark.parametrize("kind", ["events", "predictions", "outcomes"])
def test_1_4_a_file_that_has_changed_is_not_merged(
    tmp_path: Path, written: dict[str, tuple[Path, object]], kind: str, fault: Fault
) -> None:
    """Else its content would be recorded as genuine under another name."""
    source, expected = written[kind]
    intact = copy(source, tmp_path / "intact")
    assert merge_all(intact, kind)
    assert KINDS[kind][1](intact) == expected
    state = copy(source, tmp_path / "state")
    before = set(state.folder.rglob("*.parquet"))
    path = files_of(state, kind)[-1]  # of a segment that is not merged yet
    fault(path, random.Random(1))
    with pytest.raises(StoreError, match=path.name):
        merge_all(state, kind)
    assert set(state.folder.rglob("*.parquet")) <= before


def test_1_4_the_content_of_a_file_is_compared_only_if_its_time_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, compared = ProjectState(tmp_path), list[str]()
    write_batches(state)
    expected, real = read_batches(state), FolderStorage.verify

    def verify(self: FolderStorage, stored: object) -> None:
        compared.append(stored.name)  # type: ignore[attr-defined]
        real(self, stored)  # type: ignore[arg-type]

    monkeypatch.setattr(FolderStorage, "verify", verify)
    assert (read_batches(state), compared) == (expected, [])
    path = files_of(state, "batches")[3]
    path.touch()
    assert read_batches(state) == expected
    assert [state / name for name in compared] == [path]


CATALOG_FAULTS = {
    "a segment is lost": "DELETE FROM segments WHERE partition = ? AND first_seq = ?",
    "a segment is shorter": "UPDATE segments SET last_seq = last_seq - 1 WHERE partition = ? AND first_seq = ?",
    "a segment is longer": "UPDATE segments SET last_seq = last_seq + 1 WHERE partition = ? AND first_seq = ?",
}


@pytest.mark.parametrize("fault", CATALOG_FAULTS)
@pytest.mark.parametrize("kind", ["batches", "events"])
def test_1_4_a_hole_in_the_catalog_is_rejected_by_name(
    tmp_path: Path, written: dict[str, tuple[Path, object]], kind: str, fault: str
) -> None:
    source, _ = written[kind]
    _, read_log, partition = KINDS[kind]
    segments = PartitionLog(ProjectState(source), partition).segments()
    for i, segment in enumerate(segments[:-1] if "longer" in fault else segments):
        state = copy(source, tmp_path / str(i))
        state.database.execute(CATALOG_FAULTS[fault], partition, segment.first)
        with pytest.raises(StoreError, match=rf"log partition '{partition}': has a hole|segment .*: was altered"):
            read_log(state)
        assert [finding.detail for finding in check_logs(state) if re.search("has a hole|was altered", finding.detail)]
