"""The rows of Parquet files as JSON, in one order, a batch at a time."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2s
from os.path import commonpath
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import SourceError
from skewless.infra.offline.engine import connect
from skewless.infra.offline.sql import quote

_BATCH_ROWS = 8_192
_JSON = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
_UTC = pa.timestamp("us", "UTC")


@dataclass(frozen=True, kw_only=True)
class ParquetRows:
    """The rows of some files.

    Args:
        files: in the order in which they are read.
        time_column: by which all rows are ordered, those without a time first, equal ones as they stand; None: as
            they stand in the files.
    """

    files: Sequence[Path]
    time_column: str | None = None

    @classmethod
    def found(cls, place: Path | str | Sequence[Path], time_column: str | None = None) -> ParquetRows:
        """Return the rows of a folder with all below it, of a glob, or of files; in the order of their names.

        Raises:
            SourceError: there is no file.
        """
        files = sorted(_files(place) if isinstance(place, Path | str) else place)
        if not files:
            raise SourceError(f"stream {str(place)!r}", "has no Parquet file", fix="name a folder, a glob or files")
        return cls(files=files, time_column=time_column)

    @property
    def digest(self) -> str:
        """A text that changes with the names of the files, below the folder that all are in, and their sizes."""
        folder = commonpath([path.absolute().parent for path in self.files])
        parts = (f"{path.absolute().relative_to(folder)}\0{path.stat().st_size}\0" for path in self.files)
        return blake2s("".join(parts).encode(), digest_size=12).hexdigest()

    def __len__(self) -> int:
        return sum(_n_rows(path) for path in self.files)

    def batches(self, start: int) -> Iterator[pa.RecordBatch]:
        """Yield all rows from a position on.

        Raises:
            SourceError: a file cannot be read, or has no such column.
        """
        try:
            yield from self._as_they_stand(start) if self.time_column is None else self._sorted(start)
        except (pa.ArrowException, duckdb.Error, OSError) as error:
            raise _broken(str(self.files[0].parent), error) from error

    def _as_they_stand(self, start: int) -> Iterator[pa.RecordBatch]:
        for path in self.files:
            with pq.ParquetFile(path) as file:
                n = file.metadata.num_rows
                for batch in file.iter_batches(_BATCH_ROWS) if start < n else ():
                    if start < batch.num_rows:
                        yield batch.slice(start)
                    start = max(0, start - batch.num_rows)
                start = start - n if start >= n else 0

    def _sorted(self, start: int) -> Iterator[pa.RecordBatch]:
        names = [str(path) for path in self.files]
        sql = f"""
            SELECT * FROM read_parquet($files, union_by_name = true)
            ORDER BY {quote(str(self.time_column))} NULLS FIRST, file_index, file_row_number
            OFFSET $start
        """
        with TemporaryDirectory() as spill, connect(Path(spill)) as connection:
            yield from connection.sql(sql, params={"files": names, "start": start}).to_arrow_reader(_BATCH_ROWS)


def in_utc(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose times are UTC microseconds; one without a zone is UTC (SEMANTICS 1.1)."""
    columns = [column.cast(_UTC, safe=False) if pa.types.is_timestamp(column.type) else column for column in batch]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def as_json(batch: pa.RecordBatch) -> list[bytes]:
    """Return each row as a JSON object; times in ISO format with Z, bytes as Base64, what is no number as null.

    >>> as_json(pa.RecordBatch.from_pydict({"x": [1.5, None]}))
    [b'{"x":1.5}', b'{"x":null}']
    """
    return [orjson.dumps(row, _odd, _JSON) for row in batch.to_pylist()]


def _odd(value: object) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _files(place: Path | str) -> Iterator[Path]:
    path = Path(place)
    if path.is_dir():
        return path.rglob("*.parquet")
    if path.is_file():
        return iter([path])
    anchor = Path(path.anchor)
    return anchor.glob(str(path.relative_to(anchor)))


def _n_rows(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise _broken(path.name, error) from error


def _broken(name: str, error: Exception) -> SourceError:
    return SourceError(
        f"stream of Parquet files {name!r}", f"cannot be read: {error}", fix="correct or leave out the file"
    )
