"""The files of an event log as one process knows them: the manifest, and the chain of batch files after it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import StoreError
from skewless.infra.log.ends import KNOWN_AT
from skewless.infra.log.inventory import Inventory, corrupt_file_error, missing_file_error
from skewless.infra.log.manifest import FileRange, Manifest, ManifestFile, batch_path


class LogFiles:
    """The files of a log in order; only files after the last known one are looked up."""

    def __init__(self, root: Path, partition: str) -> None:
        folder = root / partition
        self.manifest = ManifestFile(folder)
        self.inventory = Inventory(root, partition)
        self.batches: list[FileRange] = []
        self._partition = partition
        self._folder = folder
        self._schema = pa.schema([])
        self._parquet_schema: pq.ParquetSchema | None = None
        self._described_generation = 0

    def follow(self) -> Manifest:
        """Update ``batches``; return the manifest that precedes them.

        Raises:
            StoreError: a file is missing or corrupt.
        """
        manifest = self.manifest.read()
        while True:
            self._drop_compacted(manifest.end)
            while (batch := self._find_batch(self._next_position(manifest))) is not None:
                self.batches.append(batch)
            # The next file may be missing because it was compacted and removed since we read the manifest.
            latest = self.manifest.read()
            if latest is manifest and not self._has_new_batch(self._next_position(manifest)):
                return manifest
            manifest = latest

    def next_seq(self) -> int:
        """Return the position after the last row."""
        return self._next_position(self.follow())

    def spans(self, first: int, last: int | None) -> list[FileRange]:
        """Return the files with positions ``first`` to ``last``, both included; None: to the end.

        Raises:
            StoreError: a file is missing, truncated or altered.
        """
        manifest = self.follow()
        spans = [*_select_spans(manifest.spans, first, last), *_select_spans(self.batches, first, last)]
        for span in spans:
            self.inventory.check(span.path)
        return spans

    def extend(self, batch: FileRange, schema: pa.Schema) -> None:
        """Add a file that this process has appended, if it is the next one."""
        self._schema = self.unify_schema(schema)
        if batch.first == self._next_position(self.manifest.read()):
            self.batches.append(batch)

    def schema(self) -> pa.Schema:
        """Return all columns that any row has, without ``__known_at``.

        Raises:
            StoreError: a file is missing or corrupt.
        """
        manifest = self.follow()
        if manifest.generation != self._described_generation and manifest.spans:
            # A compacted file has the columns of all rows before it.
            self._schema = self.unify_schema(_read_schema(manifest.spans[-1].path))
            self._described_generation = manifest.generation
        return self._schema

    def unify_schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the columns of the log and of new rows.

        Raises:
            StoreError: a column has another type than in the log.
        """
        if schema.equals(self._schema):
            return self._schema
        try:
            return pa.unify_schemas([self._schema, _strip_metadata(schema)])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise StoreError(
                f"log partition {self._partition!r}",
                f"cannot take a column of another type: {error}",
                fix="give the column a new name",
            ) from error

    def _has_new_batch(self, first: int) -> bool:
        """Return whether a batch was added at a position in the meantime; raise if only later batches exist."""
        path = batch_path(self._folder, first)
        if path.name > self.inventory.latest_name():
            return False
        if path.exists():
            return True
        raise missing_file_error(path)

    def _next_position(self, manifest: Manifest) -> int:
        return (self.batches[-1].last if self.batches else manifest.end) + 1

    def _drop_compacted(self, end: int) -> None:
        del self.batches[: bisect_left(self.batches, end + 1, key=lambda span: span.first)]
        if self.batches and self.batches[0].first != end + 1:
            self.batches.clear()

    def _find_batch(self, first: int) -> FileRange | None:
        path = batch_path(self._folder, first)
        try:
            metadata = pq.read_metadata(path)
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            raise corrupt_file_error(path, error) from error
        if self._parquet_schema is None or not metadata.schema.equals(self._parquet_schema):
            self._schema = self.unify_schema(metadata.schema.to_arrow_schema())
            self._parquet_schema = metadata.schema
        return FileRange(path=path, first=first, last=first + metadata.num_rows - 1)


def _select_spans(spans: Sequence[FileRange], first: int, last: int | None) -> Sequence[FileRange]:
    start = bisect_left(spans, first, key=lambda span: span.last)
    stop = len(spans) if last is None else bisect_left(spans, last + 1, key=lambda span: span.first)
    return spans[start:stop]


def _read_schema(path: Path) -> pa.Schema:
    try:
        schema = pq.read_schema(path)
    except FileNotFoundError as error:
        raise missing_file_error(path) from error
    except (OSError, pa.ArrowException) as error:
        raise corrupt_file_error(path, error) from error
    return _strip_metadata(schema)


def _strip_metadata(schema: pa.Schema) -> pa.Schema:
    # Drops field ids and other metadata that rows do not have, and ``__known_at``, which is read separately.
    return pa.schema([pa.field(field.name, field.type) for field in schema if field.name != KNOWN_AT])
