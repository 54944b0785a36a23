"""The training set of a model in the project's storage: its label rows, and the finished parts of its features."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.errors import ConflictError, StoreError
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.durable import remove_at_end
from skewless.infra.platform.storage.objects import StoredObject
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.engines.job import TRAINING_SET
from skewless.infra.reads.engines.results import FOLDER
from skewless.training.dataset_folder import DatasetPart, DatasetParts

# Of an interrupted training: later, it would train on old rows.
KEPT_US = 86_400_000_000


class StoredParts(DatasetParts):
    """A training set in the storage, recorded in the database; one process at a time may have it open.

    A training that was interrupted less than a day ago is continued, as of its start.

    Args:
        name: of the training set: the same only for equal definitions and label tables.
        now_us: time of the project.
        group_rows: rows of a row group.

    Attributes:
        as_of_us: labels that became known later do not count.
        counts: rows of the label table by their use.
        objects: the label rows, then the parts.
    """

    def __init__(self, state: ProjectState, name: str, now_us: int, group_rows: int) -> None:
        super().__init__()
        self._state, self._name, self._group_rows = state, name, group_rows
        self.as_of_us = now_us
        self.counts: dict[str, int] = {}
        self.objects: list[StoredObject] = []
        body = self._documents.get(name)
        if body is not None and self._is_usable(body, now_us):
            self.as_of_us, self.counts, self.identity = body["as_of_us"], body["counts"], body["identity"]
            self.parts = [DatasetPart(**part) for part in body["parts"]]
            self.objects = [StoredObject(*stored) for stored in body["objects"]]
            self.complete = body["complete"]
        else:
            self.delete()

    @property
    def is_continued(self) -> bool:
        """Return whether it has the label rows of an interrupted training."""
        return bool(self.objects)

    def add_rows(self, tables: Iterable[pa.Table], count: Callable[[], Mapping[str, int]]) -> None:
        """Write the label rows durably.

        Args:
            tables: the rows, in order; at least one table.
            count: returns the rows by their use; called after the last table.

        Raises:
            StoreError: the storage refused the write.
        """
        self.objects = [self._put(tables)]
        self.counts = dict(count())
        self._save()

    def add(self, table: pa.Table, status: Mapping[str, Mapping[str, int]]) -> None:
        """Write the next part to its own object."""
        self.objects.append(self._put([table], self._group_rows))
        name = f"part-{len(self.parts):06d}.parquet"
        self.parts.append(DatasetPart(name=name, rows=table.num_rows, status=status))
        self._save()

    def delete(self) -> None:
        """Delete the training set.

        Raises:
            StoreError: the storage or database is unavailable.
        """
        self._documents.delete(self._name)
        storage = self._state.storage
        for stored in self.objects:
            storage.delete_copy(stored)
        storage.delete([item.name for item in storage.list_objects(self._folder)])
        shutil.rmtree(self._state / self._folder, ignore_errors=True)

    def _put(self, tables: Iterable[pa.Table], group_rows: int | None = None) -> StoredObject:
        """Write tables to one object; returns it."""
        writer = None
        try:
            with remove_at_end(self._state.storage.staging_path()) as path:
                for table in tables:
                    writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
                    writer.write_table(table, group_rows)
                if writer is not None:
                    writer.close()
                return self._state.storage.put_file(f"{self._folder}/{uuid.uuid4().hex}.parquet", path)
        except (OSError, pa.ArrowException) as error:
            fix = "free disk space, then run it again"
            raise StoreError("training set", f"cannot be written: {error}", fix=fix) from error

    @property
    def _folder(self) -> str:
        return f"{FOLDER}/training-{self._name}"

    @property
    def _documents(self) -> Documents:
        return Documents(self._state.database, TRAINING_SET)

    def _is_usable(self, body: Mapping[str, Any], now_us: int) -> bool:
        if not 0 <= now_us - body["as_of_us"] < KEPT_US:
            return False
        try:
            self._state.storage.local_paths([StoredObject(*stored) for stored in body["objects"]])
        except StoreError:  # an erasure has deleted them
            return False
        return True

    def _begin(self) -> None:
        # A kill between the two leaves an object that is not recorded.
        known = {stored.name for stored in self.objects}
        storage = self._state.storage
        storage.delete([item.name for item in storage.list_objects(self._folder) if item.name not in known])
        self._save()

    def _save(self) -> None:
        body = {
            "as_of_us": self.as_of_us,
            "counts": self.counts,
            "identity": self.identity,
            "parts": [asdict(part) for part in self.parts],
            "objects": self.objects,
            "complete": self.complete,
        }
        self._documents.put(self._name, body)

    def _conflict(self, different: str) -> ConflictError:
        return ConflictError(
            "training set", f"was begun with another {different}", fix="wait a day, or change the definitions"
        )


def delete_old_sets(state: ProjectState, now_us: int) -> None:
    """Delete the training sets that nobody has continued in time.

    Raises:
        StoreError: the storage or database is unavailable.
    """
    documents = Documents(state.database, TRAINING_SET)
    for name, body in documents.list_all().items():
        if body["as_of_us"] < now_us - 7 * KEPT_US:
            state.storage.delete([StoredObject(*stored).name for stored in body["objects"]])
            documents.delete(name)
