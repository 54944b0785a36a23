"""The files of batch prediction: rows in chunks that are scored together, and the files of their predictions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from skewless.contract.errors import PlaceError, SourceError, StoreError
from skewless.contract.plan import FeaturePlan
from skewless.infra.log.reading import regroup

CHUNK_ROWS = 4_096  # large enough to use a GPU
RESULT = ("id", "score", "t_us", "version")
CSV = ".csv"
ENDINGS = (".parquet", CSV)
_BLOCK = 1 << 20


class InputFile(NamedTuple):
    """A file with rows to predict.

    Args:
        path: absolute.
        rows: number of rows of a Parquet file, or of lines of a CSV file.
        size, changed_ns: bytes and time of the last change, which show whether the file has changed since.
    """

    path: str
    rows: int
    size: int
    changed_ns: int

    @property
    def is_csv(self) -> bool:
        """Return whether it is read as CSV; all other files are Parquet."""
        return Path(self.path).suffix == CSV

    def check(self) -> None:
        """Raise SourceError if the file has changed."""
        try:
            stat = Path(self.path).stat()
        except OSError as error:
            raise _read_error(self.path, error) from error
        if (stat.st_size, stat.st_mtime_ns) != (self.size, self.changed_ns):
            fix = "run the command again when nothing writes to the file"
            raise SourceError(f"file {self.path}", "has changed since the command has begun", fix=fix)


@dataclass(frozen=True, kw_only=True)
class InputRows:
    """The rows to predict: those of a file, or of the files of a folder in the order of their names.

    Args:
        source: the file or folder.
        files: with equal columns, all Parquet or all CSV.
        names: of the columns.
        is_folder: whether the source is a folder.
    """

    source: Path
    files: tuple[InputFile, ...]
    names: tuple[str, ...]
    is_folder: bool

    @property
    def rows(self) -> int:
        """Return the number of rows; of CSV files, that of lines."""
        return sum(file.rows for file in self.files)

    @property
    def _label(self) -> str:
        return f"{'folder' if self.is_folder else 'file'} {self.source}"

    def check_columns(self, plan: FeaturePlan, results: Sequence[str] = RESULT) -> None:
        """Check that a plan finds its columns, and that none has the name of a result.

        Raises:
            SourceError: a column is missing, or has a name of the result.
        """
        for column in [*plan.join_keys, *plan.request]:
            if column.name not in self.names:
                raise SourceError(
                    self._label, "lacks a column", value=column.name, fix=f"it has {', '.join(self.names)}"
                )
        for name in results:
            if name in self.names:
                raise SourceError(
                    self._label, "has a column with a name of the result", value=name, fix="rename that column"
                )

    def read_chunks(self, rows: int) -> Iterator[tuple[int, pa.Table]]:
        """Yield the number of a file, and some of its rows, which are scored together; in order.

        Args:
            rows: of a chunk, at most. A Parquet file has a smaller one only at its end.

        Raises:
            SourceError: a file is missing, corrupt, or has changed; or no file has a row.
        """
        is_empty = True
        for number, file in enumerate(self.files):
            for chunk in _read_csv(file, rows) if file.is_csv else read_range(file, 0, file.rows, rows):
                is_empty = False
                yield number, chunk
        if is_empty:
            raise self.empty_error()

    def empty_error(self) -> SourceError:
        """Return the error for an input without rows."""
        return SourceError(self._label, "has no rows", fix="give a file with at least one row")


def open_input(source: Path) -> InputRows:
    """Return the rows of a Parquet or CSV file, or of all files of a folder.

    Files whose names begin with a dot or an underscore do not count: Spark writes some next to its rows.

    Raises:
        SourceError: a file is missing or corrupt; or a folder has none, other files, or files with other columns.
    """
    if not source.is_dir():
        file, schema = _inspect(source)
        return InputRows(source=source, files=(file,), names=tuple(schema.names), is_folder=False)
    paths = sorted(path for path in source.iterdir() if path.name[0] not in "._")
    owner = f"folder {source}"
    if not paths:
        raise SourceError(owner, "has no files", fix="name a folder with Parquet or CSV files")
    for path in paths:
        if path.is_dir() or path.suffix not in ENDINGS:
            fix = "move it, or end its name in .parquet or .csv"
            raise SourceError(owner, "has an entry that is not a Parquet or CSV file", value=path.name, fix=fix)
        if path.suffix != paths[0].suffix:
            names = f"{paths[0].name} and {path.name}"
            raise SourceError(owner, "has both Parquet and CSV files", value=names, fix="predict them one by one")
    files: list[InputFile] = []
    for path in paths:
        file, own = _inspect(path)
        if not files:
            schema = own
        elif not own.equals(schema):
            fix = "give all files of the folder the same columns, with the same types and in the same order"
            difference = _find_difference(schema, own)
            raise SourceError(f"file {path}", f"has other columns than {paths[0].name}", value=difference, fix=fix)
        files.append(file)
    return InputRows(source=source, files=tuple(files), names=tuple(schema.names), is_folder=True)


def read_range(file: InputFile, first: int, end: int, chunk_rows: int) -> Iterator[pa.Table]:
    """Yield the rows ``first`` to ``end``, exclusive, of a Parquet file in chunks; only the last may be smaller.

    Raises:
        SourceError: the file is missing, corrupt, or has changed.
    """
    file.check()
    try:
        with pq.ParquetFile(file.path) as parquet:
            yield from regroup(_read_rows(parquet, first, end, chunk_rows), chunk_rows)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _read_error(file.path, error) from error
    file.check()


def _read_rows(parquet: pq.ParquetFile, first: int, end: int, batch_rows: int) -> Iterator[pa.Table]:
    groups, start, at = [], 0, None
    for number in range(parquet.num_row_groups):
        stop = start + parquet.metadata.row_group(number).num_rows
        if start < end and stop > first:
            groups.append(number)
            at = start if at is None else at
        start = stop
    position = at or 0
    for batch in parquet.iter_batches(batch_rows, row_groups=groups):
        low, high = max(first - position, 0), min(end - position, batch.num_rows)
        if low < high:
            yield pa.Table.from_batches([batch.slice(low, high - low)])
        position += batch.num_rows


def _read_csv(file: InputFile, rows: int) -> Iterator[pa.Table]:
    file.check()
    try:
        names = pa_csv.open_csv(file.path).schema.names
        # As text, so that a key such as "007" or "NA" keeps its characters; the request parser applies types.
        convert = pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        for batch in pa_csv.open_csv(file.path, convert_options=convert):
            table = pa.Table.from_batches([batch])
            yield from (table.slice(i, rows) for i in range(0, table.num_rows, rows))
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _read_error(file.path, error) from error
    file.check()


def _inspect(path: Path) -> tuple[InputFile, pa.Schema]:
    """Return a file and its columns; those of a CSV file have no types."""
    try:
        stat = path.stat()
        if path.suffix != CSV:
            metadata = pq.read_metadata(path)
            rows, schema = int(metadata.num_rows), metadata.schema.to_arrow_schema()
        else:
            with path.open("rb") as file:
                rows = sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))
            schema = pa.schema([(name, pa.string()) for name in pa_csv.open_csv(path).schema.names])
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _read_error(path, error) from error
    if len(set(schema.names)) < len(schema.names):
        raise _read_error(path, ValueError("it has two columns with one name"))
    return InputFile(str(path.resolve()), rows, stat.st_size, stat.st_mtime_ns), schema


def _read_error(path: Path | str, error: Exception) -> SourceError:
    return SourceError(f"file {path}", f"cannot be read: {error}", fix="give a Parquet or CSV file")


def _find_difference(one: pa.Schema, other: pa.Schema) -> str:
    """Return the first column in which two schemas differ."""
    for i in range(max(len(one), len(other))):
        found, expected = (_describe(schema, i) for schema in (other, one))
        if found != expected:
            return f"{found}, not {expected}"
    return "nulls"


def _describe(schema: pa.Schema, column: int) -> str:
    return f"{schema.names[column]}: {schema.types[column]}" if column < len(schema) else "no column"


def check_target(source: InputRows, target: Path) -> None:
    """Check that predictions can be written to a file or folder.

    Raises:
        PlaceError: its folder does not exist, or is that of the input; or the target is a folder with files.
    """
    folder = target.parent
    if not folder.is_dir():
        raise PlaceError(f"folder {folder}", "does not exist", fix="create it, or choose another file")
    if source.source.resolve() in {folder.resolve(), target.resolve()}:
        raise PlaceError(f"target {target}", "is the input, or in its folder", fix="choose another target")
    is_folder = writes_folder(source, target)
    if (target.is_file() or (target.is_dir() and any(target.iterdir()))) if is_folder else target.is_dir():
        problem = "is a file" if target.is_file() else "is not empty" if is_folder else "is a folder"
        raise PlaceError(f"target {target}", problem, fix="choose a new folder, or a .parquet or .csv file")


def writes_folder(source: InputRows, target: Path) -> bool:
    """Return whether a target becomes a folder, with a file for each file of the input."""
    return source.is_folder and (target.is_dir() or target.suffix not in ENDINGS)


@contextmanager
def open_targets(source: InputRows, target: Path) -> Iterator[Callable[[int, pa.Table], None]]:
    """Yield the function that adds predictions of the n-th file of the input to a target, in the order of the files.

    The target is a file, or a folder with a file of the same name for each file with rows. It appears at the end of the
    block; if the block fails, nothing changes.

    Raises:
        PlaceError: as ``check_target``.
        StoreError: the disk refused a write.
    """
    check_target(source, target)
    if not writes_folder(source, target):
        with open_target(target) as write:
            yield lambda _, rows: write(rows)
        return
    temporary = target.with_name(f".{target.name}.tmp")
    names = [Path(file.path).name for file in source.files]
    current: tuple[int, Callable[[pa.Table], None]] | None = None
    try:
        with _report_write_errors(target):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        with ExitStack() as part:

            def write_rows(number: int, rows: pa.Table) -> None:
                nonlocal current
                if current is None or current[0] != number:
                    part.close()
                    current = number, part.enter_context(open_target(temporary / names[number]))
                current[1](rows)

            yield write_rows
        with _report_write_errors(target):
            temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def open_target(target: Path) -> Iterator[Callable[[pa.Table], None]]:
    """Yield the function that adds rows to a Parquet or CSV file, which appears at the end of the block.

    If the block fails, or adds no rows, the file does not change.

    Raises:
        StoreError: the disk refused a write.
    """
    temporary = target.with_name(f".{target.name}.tmp")
    writer: pq.ParquetWriter | pa_csv.CSVWriter | None = None

    def write(rows: pa.Table) -> None:
        nonlocal writer
        with _report_write_errors(target):
            writer = writer or _writer(temporary, target, rows.schema)
            writer.write_table(rows)

    try:
        yield write
        with _report_write_errors(target):
            _close(writer)
            if writer is not None:
                temporary.replace(target)
    except BaseException:
        # A disk that failed to write a row may also fail to write the footer.
        with suppress(OSError):
            _close(writer)
        temporary.unlink(missing_ok=True)
        raise


def _writer(path: Path, target: Path, schema: pa.Schema) -> pq.ParquetWriter | pa_csv.CSVWriter:
    return pa_csv.CSVWriter(path, schema) if target.suffix == CSV else pq.ParquetWriter(path, schema)


@contextmanager
def _report_write_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        fix = "free disk space, or choose another file"
        raise StoreError(f"file {target}", f"cannot be written: {error}", fix=fix) from error


def _close(writer: pq.ParquetWriter | pa_csv.CSVWriter | None) -> None:
    if writer is not None:
        writer.close()
