"""Planted defects: what tests alter in logs and stores, and what replay must name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.infra.models.runtimes.port import Runtime
from skewless.infra.platform.storage.objects import FolderStorage
from skewless.infra.platform.storage.project_state import DATABASE_FILE, ProjectState
from skewless.infra.platform.storage.schema import SEGMENT_SUM
from skewless.infra.reads.online.port import Binaries, Marker, OnlineWriter
from skewless.infra.records.predictions.checksum import seal_rows
from skewless.infra.records.predictions.segments import CONTENT
from skewless.validation.replay_report import Cause, ReplayReport
from tests.worlds.trained import Sandbox


def named(report: ReplayReport) -> set[tuple[Cause, str]]:
    """Return what was found: cause, and the view or feature that it is about."""
    return {(item.cause, item.about) for item in report.findings.examples}


def flipped(value: float, bit: int) -> float:
    """Return a float64 with one bit flipped."""
    bits = np.array([value]).view(np.uint64) ^ np.uint64(1 << bit)
    return float(bits.view(np.float64)[0])


def alter_predictions(place: Sandbox, column: str, change: Callable[[Any], Any], *, rows: Sequence[int] = (0,)) -> None:
    """Rewrite some values of one column of the only prediction file."""
    (path,) = place.log_files()
    alter(path, column, dict.fromkeys(rows, change))


def alter(path: Path, column: str, changes: dict[int, Callable[[Any], Any]]) -> None:
    """Rewrite single values of a log file in its place, and its entry in the catalog with it."""
    table = pq.read_table(path)
    values = table[column].to_pylist()
    for i, change in changes.items():
        values[i] = change(values[i])
    array = pa.array(values, table.schema.field(column).type)
    rewrite(path, table.set_column(table.column_names.index(column), column, array))


def reseal(path: Path) -> None:
    """Let the rows of a file that was altered be what the server has logged."""
    rows = pq.read_table(path)
    rewrite(path, seal_rows(rows.select(CONTENT.names), rows["file"][0].as_py()))


def rewrite(path: Path, rows: pa.Table) -> None:
    """Put other rows in the place of a log file's, as one who knows of the catalog would."""
    pq.write_table(rows, path)
    record_content(path, rows=rows.num_rows)


def record_content(path: Path, *, rows: int | None = None, state: ProjectState | None = None) -> None:
    """Record the content that a log file has now, so that the catalog cannot tell that it was altered.

    Args:
        path: of the file.
        rows: number of its rows, if it has changed.
        state: of the project; None: its database is in its folder.
    """
    state = state or ProjectState(next(folder for folder in path.parents if (folder / DATABASE_FILE).exists()))
    stored = FolderStorage(state.folder).describe(str(path.relative_to(state.folder)))
    query = "UPDATE segments SET size = ?, stamp = ?, digest = ? WHERE object = ?"
    state.database.execute(query, stored.size, stored.stamp, stored.digest, stored.name)
    if rows is not None:
        query = "UPDATE segments SET last_seq = first_seq + ? - 1 WHERE object = ?"
        state.database.execute(query, rows, stored.name)
        state.database.execute(f"UPDATE segments SET checksum = {SEGMENT_SUM.sql} WHERE object = ?", stored.name)


class RuntimeBefore:
    """A runtime that scores something else than it was given."""

    def __init__(self, inner: Runtime, change: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> None:
        self._inner = inner
        self._change = change
        self.runtime_id = inner.runtime_id
        self.n_features = inner.n_features
        self.n_outputs = inner.n_outputs

    def margin(self, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return self._inner.margin(self._change(matrix))

    def score(self, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return self._inner.score(self._change(matrix))

    def contributions(self, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return self._inner.contributions(self._change(matrix))

    def close(self) -> None:
        self._inner.close()


class Killed(BaseException):
    """The process is gone."""


class HalfWriter:
    """Writes half of the rows that it is given, calls a function, then the other half, and calls it again."""

    def __init__(self, inner: OnlineWriter, between: Callable[[], None]) -> None:
        self._inner = inner
        self._between = between

    def put(self, keys: Binaries, rows: Binaries) -> int:
        half = len(keys) // 2
        written = self._inner.put(keys[:half], rows[:half])
        self._between()
        written += self._inner.put(keys[half:], rows[half:])
        self._between()
        return written

    def marker(self, name: str) -> int | None:
        return self._inner.marker(name)

    def set_markers(self, marks: Mapping[str, Marker], expected: Mapping[str, int | None] | None = None) -> None:
        self._inner.set_markers(marks, expected)

    def delete(self, prefix: str) -> int:
        return self._inner.delete(prefix)

    def clock_offset_us(self) -> int:
        return self._inner.clock_offset_us()

    def close(self) -> None:
        self._inner.close()


@contextmanager
def written_through(place: Sandbox, writer: OnlineWriter) -> Iterator[None]:
    """Let the project materialise through another writer for a while."""
    place.project.__dict__["materializer"] = replace(place.project.materializer, online=lambda: writer)
    try:
        yield
    finally:
        del place.project.__dict__["materializer"]
