"""Reads the logs of releases before the catalog, which had inventories, manifests and files of ends.

In the state folder::

    log/PARTITION/FIRST.parquet            a batch; the next one begins after its last row
    log/PARTITION/cFIRST-LAST.parquet      merged batches, if manifest.json lists it
    log/PARTITION/ends.bin                 when positions had been applied
    predictions/TIME-WRITER-NUMBER.parquet
    predictions/DAY-merged-NUMBER.parquet  it names its sources, which may still be there
    outcomes/TIME-BATCH.parquet            merged files are called TIME-NAME-merged.parquet
    log.files/PARTITION.list               size, time and digest of each file; also predictions.files, outcomes.files
"""

from __future__ import annotations

import json
import re
import uuid
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.infra.log.catalog import Catalog, Segment
from skewless.infra.log.compaction import write_rows
from skewless.infra.log.log_columns import INGEST, KNOWN_AT, encode_columns, unify_columns
from skewless.infra.log.reading import read_tables
from skewless.infra.outcomes.log import OUTCOMES
from skewless.infra.outcomes.log import SCHEMA as OUTCOME_SCHEMA
from skewless.infra.predictions.segments import PREDICTIONS
from skewless.infra.predictions.segments import SCHEMA as PREDICTION_SCHEMA
from skewless.infra.storage.objects import StoredObject, corrupt_error, missing_error
from skewless.infra.storage.project_state import ProjectState

FOLDERS = ("log.files", f"{PREDICTIONS}.files", f"{OUTCOMES}.files")
MARKS = ("log/**/manifest.json", "log/**/ends.bin", "log/**/tail.json", *(f"{name}/**/*.list" for name in FOLDERS))
LOCKS = tuple(f"{name}/**/*.{kind}" for name in (*FOLDERS, "log", PREDICTIONS, OUTCOMES) for kind in ("lock", "gate"))

_ENDS = "ends.bin"
_BATCH = re.compile(r"\d{20}\.parquet")
_MERGED_PREDICTIONS = re.compile(r"\d{20}-merged-\d{6,}\.parquet")
_MERGED_FROM = b"skewless.merged_from"
_END = np.dtype([("first", "<i8"), ("last", "<i8"), ("ended_us", "<i8"), ("sum", "<u4")])
_CHECKED = 24  # bytes of an end that its checksum is of
_NEVER = np.iinfo(np.int64).min
_CHANGING, _UNKNOWN = -1, "-"  # size of a file that changes; digest that was not recorded
Times = npt.NDArray[np.int64]


class OldLog(NamedTuple):
    """A log as the catalog has to describe it; ``sources`` are the files that were merged into a file, by its name."""

    partition: str
    schema: pa.Schema
    segments: list[Segment]
    sources: Mapping[str, Sequence[str]] = {}

    def add_to(self, catalog: Catalog, proven: Collection[str]) -> None:
        """Add the log to the catalog, unless it is there; ``proven`` are the names of proven files."""
        done = set(proven) | {name for name, sources in self.sources.items() if set(proven).issuperset(sources)}
        segments = [each._replace(is_proven=Path(each.stored.name).name in done) for each in self.segments]
        catalog.adopt(self.partition, segments, encode_columns(self.schema))


def read_old_logs(state: ProjectState, *, dry_run: bool = False) -> list[OldLog]:
    """Return all logs; a file whose rows became known at several times is written again, with these times.

    A dry run stores nothing, and compares no digests.

    Raises:
        StoreError: a file is missing or corrupt.
    """
    root, lists = state / "log", state / "log.files"
    partitions = {path.parent.relative_to(root) for path in root.rglob("*.parquet")}
    partitions |= {path.relative_to(lists).with_suffix("") for path in lists.rglob("*.list")}
    names = [f"log/{partition.as_posix()}" for partition in sorted(partitions)]
    logs = [_read_partition(_OldFolder(state, name, lists, dry_run=dry_run)) for name in names]
    for name, read in ((PREDICTIONS, _read_predictions), (OUTCOMES, _read_outcomes)):
        logs.append(read(_OldFolder(state, name, state / f"{name}.files", dry_run=dry_run)))
    return [log for log in logs if log.segments]


class _OldFolder:
    """The files of one log."""

    def __init__(self, state: ProjectState, name: str, lists: Path, *, dry_run: bool) -> None:
        self.name, self.path, self.storage, self.dry_run = name, state / name, state.storage, dry_run
        self.partition = name.removeprefix("log/")
        self.entries = _read_list(lists / f"{self.partition if name != self.partition else 'all'}.list")
        # A file that waits to be shipped is not in the log, whatever an interrupted shipment has stored.
        waiting = {path.name for path in (state / "spool" / name).glob("*.parquet")}
        names = {path.name for path in self.path.glob("*.parquet")} | self.entries.keys()
        self.files = sorted(names - waiting - {_ENDS})

    def store(self, name: str) -> StoredObject:
        """Return a file as an object, after a comparison with its entry; the object keeps the file's name."""
        path = self.path / name
        size, digest = self.entries.get(name, (_CHANGING, _UNKNOWN))
        if not path.is_file():
            raise missing_error(path)
        if size not in {_CHANGING, path.stat().st_size}:
            raise corrupt_error(path, f"it has {path.stat().st_size} bytes, and had {size} when it was written")
        if self.dry_run:
            return StoredObject(f"{self.name}/{name}", path.stat().st_size, "", digest)
        stored = self.storage.put_file(f"{self.name}/{name}", path)
        if digest not in {_UNKNOWN, stored.digest}:
            raise corrupt_error(path, "its content has changed since it was written")
        return stored


def _read_list(path: Path) -> dict[str, tuple[int, str]]:
    """Return the size and the digest of each file of an inventory; a line that a power cut has torn does not count."""
    entries: dict[str, tuple[int, str]] = {}
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        body, _, total = line.rpartition(b" ")
        if body and total == b"%08x" % zlib.crc32(body):
            sign, name, *values = body.decode().split(" ")
            if sign == "-":
                entries.pop(name, None)
            else:
                entries[name] = (int(values[0]), values[3])
    return entries


def _read_partition(folder: _OldFolder) -> OldLog:
    ends, schema, segments, position = _read_ends(folder), pa.schema([]), list[Segment](), 0
    spans = {first: f"c{first:020d}-{last:020d}.parquet" for first, last in _read_manifest(folder)}
    while (name := spans.get(position, f"{position:020d}.parquet")) in folder.files or position in spans:
        stored = folder.store(name)
        with _open(folder.path / name) as file:
            schema = unify_columns(folder.partition, schema, file.schema_arrow)
            last = position + file.metadata.num_rows - 1
            segments.append(_describe(folder, file, Segment(position, last, stored), ends))
        position = last + 1
    if any(name > f"{position:020d}" for name in folder.files if _BATCH.fullmatch(name)):
        raise missing_error(folder.path / f"{position:020d}.parquet")
    return OldLog(folder.partition, schema, segments)


def _read_manifest(folder: _OldFolder) -> list[tuple[int, int]]:
    path = folder.path / "manifest.json"
    try:
        body = json.loads(path.read_bytes())
        if body.pop("sum", None) not in {None, zlib.crc32(json.dumps(body).encode())}:
            raise corrupt_error(path, "its checksum is wrong")
        return [(int(first), int(last)) for first, last in body["spans"]]
    except FileNotFoundError as error:
        # A compaction that was killed before it wrote a manifest leaves its file next to the first batch.
        if f"{0:020d}.parquet" not in folder.files and any(name[0] == "c" for name in folder.files):
            raise missing_error(path) from error
        return []
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise corrupt_error(path, repr(error)) from error


def _read_ends(folder: _OldFolder) -> npt.NDArray[Any]:
    """Return the recorded ends; the first one that covers a position counts."""
    path = folder.path / _ENDS
    if _ENDS in folder.entries and not path.exists():
        raise missing_error(path)
    data = path.read_bytes() if path.exists() else b""
    ends = np.frombuffer(data, _END, len(data) // _END.itemsize)
    places = range(0, len(ends) * _END.itemsize, _END.itemsize)
    valid = ends["sum"] == np.array([zlib.crc32(data[at : at + _CHECKED]) for at in places], np.uint32)
    if not valid[: valid.sum()].all():  # only the last ones may be torn, by a power cut
        raise corrupt_error(path, "a record has a wrong checksum")
    complete: npt.NDArray[Any] = ends[valid]
    return complete


def _describe(folder: _OldFolder, file: pq.ParquetFile, segment: Segment, ends: npt.NDArray[Any]) -> Segment:
    """Return a segment with its times; one time fills all rows whose file has none, so other files are rewritten."""
    if INGEST in file.schema_arrow.names:
        last_group = file.read_row_group(file.num_row_groups - 1, columns=[INGEST])
        segment = segment._replace(at_us=int(last_group[INGEST][-1].as_py() or 0))
    stored = _read_times(file, segment.rows)
    known = stored.copy()
    for first, last, ended_us, _ in ends[(ends["last"] >= segment.first) & (ends["first"] <= segment.last)][::-1]:
        known[max(first - segment.first, 0) : last + 1 - segment.first] = ended_us
    known = np.where(stored == _NEVER, known, stored)
    filled = np.unique(known[stored == _NEVER])
    complete = int(known.max()) if (known != _NEVER).all() else None
    if filled.tolist() in ([complete], [_NEVER]):
        return segment._replace(known_us=complete)
    if len(filled) and not folder.dry_run:
        segment = segment._replace(stored=_rewrite(folder, segment, file.schema_arrow, known))
    return segment._replace(known_us=complete, is_merged=complete is not None)


def _read_times(file: pq.ParquetFile, rows: int) -> Times:
    if KNOWN_AT not in file.schema_arrow.names:
        return np.full(rows, _NEVER)
    column = file.read(columns=[KNOWN_AT])[KNOWN_AT].combine_chunks()
    return np.asarray(column.fill_null(int(_NEVER)).to_numpy(zero_copy_only=False), np.int64)


def _rewrite(folder: _OldFolder, segment: Segment, columns: pa.Schema, known: Times) -> StoredObject:
    schema = unify_columns(folder.partition, pa.schema([]), columns).append(pa.field(KNOWN_AT, pa.int64()))

    def read() -> Iterator[pa.Table]:
        at = 0
        for rows in read_tables(folder.storage.local_path(segment.stored), 0, 0, segment.rows - 1, schema):
            times = known[at : at + rows.num_rows]
            yield rows.set_column(len(schema) - 1, KNOWN_AT, pa.array(times, mask=times == _NEVER))
            at += rows.num_rows

    with write_rows(folder.storage, read(), schema) as (path, _):
        return folder.storage.put_file(f"{folder.name}/{segment.first:020d}-{uuid.uuid4().hex[:12]}.parquet", path)


def _read_predictions(folder: _OldFolder) -> OldLog:
    merged = [name for name in folder.files if _MERGED_PREDICTIONS.fullmatch(name)]
    sources = {name: _read_sources(folder.path / name) for name in merged}
    replaced = {source for names in sources.values() for source in names}
    names = [name for name in folder.files if name not in replaced]
    return OldLog(folder.partition, PREDICTION_SCHEMA, list(_number(folder, names, sources)), sources)


def _read_sources(path: Path) -> list[str]:
    with _open(path) as file:
        return list(json.loads(file.metadata.metadata[_MERGED_FROM]))


def _read_outcomes(folder: _OldFolder) -> OldLog:
    """Return the outcomes without the files of which a kill has left a merged copy: a file has complete batches."""
    batches: dict[str, frozenset[str]] = {}
    for name in folder.files:
        with _open(folder.path / name) as file:
            batches[name] = frozenset(file.read(columns=["batch"])["batch"].unique().to_pylist())
    seen: set[str] = set()
    names = []
    for name in sorted(folder.files, key=lambda name: (-len(batches[name]), name)):
        if not seen.issuperset(batches[name]):
            names.append(name)
            seen |= batches[name]
    return OldLog(folder.partition, OUTCOME_SCHEMA, list(_number(folder, sorted(names), {})))


def _number(folder: _OldFolder, names: Sequence[str], sources: Mapping[str, Sequence[str]]) -> Iterator[Segment]:
    position = 0
    for name in names:
        stored = folder.store(name)
        with _open(folder.path / name) as file:
            end = position + file.metadata.num_rows
        times = [int(each[:20]) for each in sources.get(name, [name]) if each[:20].isdigit()]
        if end > position:
            yield Segment(position, end - 1, stored, max(times, default=0))
        position = end


@contextmanager
def _open(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except FileNotFoundError as error:
        raise missing_error(path) from error
    except (OSError, pa.ArrowException, TypeError, KeyError, ValueError) as error:
        raise corrupt_error(path, repr(error)) from error


def remove_leftovers(state: ProjectState) -> None:
    """Delete the files of the logs' folders that no log has: sources of merged files, and what kills have left.

    Raises:
        StoreError: the storage failed.
    """
    catalog = Catalog(state.unchecked_database)
    for folder in ("log", PREDICTIONS, OUTCOMES):
        names = catalog.find_orphans(state.storage, folder, 2**62)
        state.storage.delete(name for name in names if name.endswith((".parquet", ".tmp")))
