"""SEMANTICS 1.4: whatever happens to the files of a log, a reader gets the written rows or an error with a name."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import StoreError
from skewless.contract.feedback import Outcome
from skewless.infra.log.ends import NAME as ENDS
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.inventory import Inventory, inventory_folder
from skewless.infra.log.log_columns import KNOWN_AT, SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.partitions import log_partitions
from skewless.infra.outcomes.compaction import compact
from skewless.infra.outcomes.log import OutcomeLog
from skewless.infra.outcomes.writer import FOLDER as OUTCOMES
from skewless.infra.outcomes.writer import OutcomeWriter
from skewless.infra.predictions.files import FOLDER as PREDICTIONS
from skewless.infra.predictions.files import log_files
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.checkup.logs import check_logs
from tests.unit.infra.predictions.merges import merge, write

BATCH, EVENTS = "batch/v-0123456789abcdef", "events/s/ab12cd/0"
ROWS = 40
Reads = Callable[[Path], object]
Kind = tuple[Callable[[Path], None], Reads, str]


def write_batches(state: Path) -> None:
    log = AcceptedLog(state / "log", BATCH)
    for i in range(8):
        log.append(pa.table({"x": [i] * 5, "text": [f"text {i}"] * 5}))


def read_batches(state: Path) -> object:
    """Read as offline views do."""
    files = AcceptedLog(state / "log", BATCH).files()
    return duckdb.execute("SELECT * FROM read_parquet($files) ORDER BY ALL", {"files": files}).fetchall()


def write_events(state: Path) -> None:
    """Leave compacted files and batches behind them."""
    log = EventLog(state / "log", EVENTS, grace_s=0)
    for i in range(8):
        span = log.append(pa.table({"x": [i] * 5}))
        log.record_end(span.first, span.last, 100 + i)
        if i in {2, 5}:
            log.compact(keep=1, target_rows=10)
            log.sweep()


def read_events(state: Path) -> object:
    """Read as stream workers and bootstrap do; of files alone as windows do."""
    (name,) = log_partitions(state / "log", "s") or [""]
    log = EventLog(state / "log", name)
    rows = pa.concat_tables(log.read(columns=["x", SEQ, KNOWN_AT])).to_pylist()
    same = duckdb.execute(f"SELECT x, {SEQ} FROM read_parquet($f) ORDER BY {SEQ}", {"f": log.files()}).fetchall()
    assert [(row["x"], row[SEQ]) for row in rows] == same
    return rows


def write_predictions(state: Path) -> None:
    for seed in range(6):
        write(state, day=seed // 4, seed=seed)
    merge(state, day=1)


def read_predictions(state: Path) -> object:
    tables = [pq.ParquetFile(path).read().replace_schema_metadata() for path in log_files(state / PREDICTIONS)]
    return sorted(map(repr, pa.concat_tables(tables).to_pylist()))


def write_outcomes(state: Path) -> None:
    writer = OutcomeWriter(ProjectState(state))
    for i in range(6):
        writer.append([Outcome(prediction_id=f"p{i}", label=float(i), known_at=i)], received_at=i, source="http")


def read_outcomes(state: Path) -> object:
    with duckdb.connect() as connection:
        return OutcomeLog(ProjectState(state), connection).latest(100).to_pylist()


KINDS: dict[str, Kind] = {
    "batches": (write_batches, read_batches, "log"),
    "events": (write_events, read_events, "log"),
    "predictions": (write_predictions, read_predictions, PREDICTIONS),
    "outcomes": (write_outcomes, read_outcomes, OUTCOMES),
}


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


def flip_first(path: Path, luck: random.Random) -> None:
    """Flip a bit of the first file."""
    data = bytearray(path.read_bytes())
    data[luck.randrange(20)] ^= 1 << luck.randrange(8)
    path.write_bytes(data)


def swap(path: Path, luck: random.Random) -> None:
    """Replace a file with another file of the log, as by a wrong copy."""
    other = luck.choice(sorted(path.parent.glob(f"*{path.suffix}")))
    path.write_bytes(other.read_bytes())


FAULTS = (delete, delete_folder, cut, empty, flip, swap)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, object]]:
    found = {}
    for name, (make, read, _) in KINDS.items():
        state = tmp_path_factory.mktemp(name)
        make(state)
        found[name] = state, read(state)
    return found


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(1, 30))])
@pytest.mark.parametrize("kind", KINDS)
def test_1_4_a_damaged_log_is_refused_by_name_or_read_right(
    tmp_path: Path, written: dict[str, tuple[Path, object]], kind: str, seed: int
) -> None:
    """Each file in turn: of the log, and of the notes about it."""
    source, expected = written[kind]
    _, read, root = KINDS[kind]
    luck = random.Random(seed)
    refused, wrong = 0, dict[object, str]()
    files = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file() and path.stat().st_size]
    assert any(path.parts[0] == inventory_folder(Path(root)).name for path in files)
    for i, name in enumerate(files):
        # A power cut may lose the latest ends: then the known times of their rows are unknown (SEMANTICS 2.6).
        fault = luck.choice([delete, flip_first] if name.name == ENDS else FAULTS)
        state = tmp_path / str(i)
        shutil.copytree(source, state, copy_function=shutil.copy2)
        fault(state / name, luck)
        try:
            assert read(state) == expected, (fault.__name__, name)
        except StoreError as error:
            refused += 1
            named = Path(error.thing.split()[-1].strip("'"))
            if fault is not delete_folder:
                wrong.update({(fault.__name__, name): str(error)} if named.name != name.name else {})
    assert refused
    assert not wrong


def rot(path: Path, luck: random.Random) -> None:
    """Flip a bit as a disk does, which dates nothing."""
    stat = path.stat()
    flip(path, luck)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("fault", [rot, flip, cut, delete, delete_folder])
@pytest.mark.parametrize("kind", KINDS)
def test_1_4_the_doctor_names_each_file_that_is_not_what_was_written(
    tmp_path: Path, written: dict[str, tuple[Path, object]], kind: str, fault: Callable[[Path, random.Random], None]
) -> None:
    source, _ = written[kind]
    root = KINDS[kind][2]
    shutil.copytree(source, tmp_path / "state", copy_function=shutil.copy2)
    assert {finding.verdict for finding in check_logs(ProjectState(tmp_path / "state"))} == {"ok"}
    path = random.Random(kind).choice(sorted((tmp_path / "state" / root).rglob("*.parquet")))
    fault(path, random.Random(1))
    (said,) = [finding for finding in check_logs(ProjectState(tmp_path / "state")) if finding.verdict == "fail"]
    assert said.name == f"files of {root}"
    assert path.name in said.detail or fault is delete_folder
    assert ".parquet" in said.detail


@pytest.mark.parametrize("kind", KINDS)
def test_1_4_a_log_of_a_release_before_is_read_and_noted_with_the_next_file(tmp_path: Path, kind: str) -> None:
    make, read, root = KINDS[kind]
    make(tmp_path)
    expected = read(tmp_path)
    shutil.rmtree(inventory_folder(tmp_path / root))
    assert read(tmp_path) == expected
    {"batches": more_batches, "events": more_events, "predictions": more_predictions, "outcomes": write_outcomes}[kind](
        tmp_path
    )
    gone = min((tmp_path / root).rglob("*.parquet"))
    gone.unlink()
    with pytest.raises(StoreError, match=f"{gone.name}: is missing"):
        read(tmp_path)


def more_batches(state: Path) -> None:
    AcceptedLog(state / "log", BATCH).append(pa.table({"x": [9], "text": ["more"]}))


def more_events(state: Path) -> None:
    EventLog(state / "log", EVENTS).append(pa.table({"x": [9]}))


def more_predictions(state: Path) -> None:
    write(state, day=3, seed=9)


def rewrite(path: Path, _: random.Random) -> None:
    """Leave a file that can be read, with other rows."""
    pq.write_table(pq.read_table(path).slice(1), path)


def merge_all(state: Path, kind: str) -> None:
    """Merge the files, as the scheduler does."""
    if kind == "events":
        EventLog(state / "log", EVENTS, grace_s=0).compact(keep=0, target_rows=1_000)
    elif kind == "predictions":
        merge(state)
    else:
        compact(ProjectState(state))


@pytest.mark.parametrize("fault", [rot, flip, cut, delete, rewrite])
@pytest.mark.parametrize("kind", ["events", "predictions", "outcomes"])
def test_1_4_what_is_not_what_was_written_is_not_merged(
    tmp_path: Path, written: dict[str, tuple[Path, object]], kind: str, fault: Callable[[Path, random.Random], None]
) -> None:
    """Else it would be noted as whole under another name."""
    source, expected = written[kind]
    _, read, root = KINDS[kind]
    shutil.copytree(source, tmp_path / "whole", copy_function=shutil.copy2)
    before = set((tmp_path / "whole").rglob("*.parquet"))
    merge_all(tmp_path / "whole", kind)
    assert set((tmp_path / "whole").rglob("*.parquet")) != before
    assert read(tmp_path / "whole") == expected
    shutil.copytree(source, tmp_path / "state", copy_function=shutil.copy2)
    before = set((tmp_path / "state").rglob("*.parquet"))
    # The latest file is in no merge yet, of any kind.
    path = max((tmp_path / "state" / root).rglob("*.parquet"))
    fault(path, random.Random(1))
    with pytest.raises(StoreError, match=path.name):
        merge_all(tmp_path / "state", kind)
    assert set((tmp_path / "state").rglob("*.parquet")) <= before


def test_1_4_files_that_were_copied_with_other_times_are_compared_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_batches(tmp_path)
    for path in (tmp_path / "log" / BATCH).glob("*.parquet"):
        path.touch()
    expected = read_batches(tmp_path)
    compared: list[Path] = []
    monkeypatch.setattr(Inventory, "verify", lambda _, path: compared.append(path))
    assert (read_batches(tmp_path), compared) == (expected, [])


def test_1_4_notes_do_not_grow_with_what_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.log.inventory._SMALL", 8)
    inventory = Inventory(tmp_path / "log")
    (tmp_path / "log").mkdir()
    for i in range(60):
        path = tmp_path / "log" / f"{i}.parquet"
        path.write_bytes(b"x")
        inventory.add(path)
        if i > 2:
            inventory.remove_entries([f"{i - 3}.parquet"])
    lines = (inventory_folder(tmp_path / "log") / "all.list").read_text().splitlines()
    assert len(lines) <= 20
    assert sorted(Inventory(tmp_path / "log").entries()) == ["57.parquet", "58.parquet", "59.parquet"]
    assert inventory.entries() == Inventory(tmp_path / "log").entries()
