"""Builds the training set of a model: in memory, or in the storage if it is larger, where it is read in batches."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.arrow_numbers import int64_array
from skewless.contract.clock import from_us
from skewless.contract.columns import digest
from skewless.contract.errors import ConflictError, SourceError, StoreError
from skewless.contract.labels import AnyLabels
from skewless.contract.plan import FeaturePlan
from skewless.contract.vector import Assembler, Matrix, Vocabularies
from skewless.infra.log.reading import regroup
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.durable import remove_at_end
from skewless.infra.platform.storage.objects import ObjectStorage, StoredObject
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.engines.job import TRAINING_SET, delete_spilled, spill_folder
from skewless.infra.reads.engines.results import FOLDER
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.engine import read_memory_limit
from skewless.infra.reads.offline.entity_file import EntityFileRows
from skewless.infra.reads.offline.labels import (
    PREDICTION,
    entity_rows,
    find_labels,
    query_labels,
    read_labels,
    request_arrays,
    stream_labels,
)
from skewless.infra.records.outcomes.label_rows import ResolvedLabels, resolve_labels
from skewless.infra.records.outcomes.labelled_log import LabelledLog
from skewless.training.dataset import (
    Dataset,
    assemble_dataset,
    check_usable,
    count_contradictions,
    read_label_fields,
    select_usable,
)
from skewless.training.dataset_files import DatasetFiles, OnRows
from skewless.training.dataset_folder import DatasetPart, DatasetParts, merge_status
from skewless.training.logged_vectors import has_logged_vectors, read_logged_vectors
from skewless.training.mode_gap import measure_mode_gap, spread_indices
from skewless.training.row_source import RowSource
from skewless.training.stored_matrix import MatrixFiles, StoredMatrix, count_block_rows
from skewless.training.training_data import TrainingData

# Their trainers are StreamTrainers.
STREAMED = ("lightgbm", "xgboost")
_log = EventLogger()
_BATCH_ROWS = 100_000
# The column of the parts; a feature's name has two underscores.
_PART_TIME = "t"


@dataclass(frozen=True, kw_only=True)
class StoredDataset(TrainingData):
    """A training set with its features in the storage.

    Args:
        matrix: the vectors; of the dataset's own words.
        files: of the vectors.
    """

    matrix: StoredMatrix = field(repr=False)
    files: MatrixFiles = field(repr=False)

    def test_batches(self, assembler: Assembler, labels: AnyLabels) -> Iterator[Matrix]:
        """Yield the vectors of the test rows by the pinned plan of another model; see ``TrainingData``."""
        if assembler.plan.hash == self.plan.hash:
            # The same features; only the words may have other codes.
            yield from StoredMatrix(self.files, self.names, assembler.codes).select(self.test).batches()
        elif self.source is None:
            raise StoreError("training set", "has no log for other views", fix="build it again from the log")
        else:
            yield from self.source.batches(assembler, labels, self.t[self.test], self.labels[self.test])


@dataclass(frozen=True, kw_only=True)
class StoredLabels:
    """The used rows of a label table in a Parquet file, as the entity rows of a dataset.

    Args:
        stored: the file, with the columns of ``read_labels``.
        plan: of the service.
        name: of the label table in errors.
    """

    storage: ObjectStorage
    stored: StoredObject
    plan: FeaturePlan
    name: str

    @property
    def time_column(self) -> str:
        """Return the name of the column of their time."""
        return TIME

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns that the parts repeat."""
        return (_PART_TIME,)

    @property
    def width(self) -> int:
        """Return the number of columns of a row."""
        return len(self.column_names)

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """Return the names of all columns."""
        with self._open() as file:
            return tuple(file.schema_arrow.names)

    def fingerprint(self) -> str:
        """Return a hash of the rows."""
        return self.stored.digest

    def count(self) -> int:
        """Return the number of rows; their times and request fields were checked before."""
        with self._open() as file:
            return int(file.metadata.num_rows)

    def read(self, rows: int) -> Iterator[EntityFileRows]:
        """Yield all rows in order, exactly ``rows`` at a time."""
        with self._open() as file:
            for table in regroup(file.iter_batches(_BATCH_ROWS), rows):
                yield EntityFileRows(
                    own=pa.table({_PART_TIME: table[TIME]}),
                    keys=entity_rows(self.plan, table),
                    request=request_arrays(self.plan.request, table),
                )

    def read_column(self, name: str) -> pa.ChunkedArray:
        """Return a column."""
        with self._open() as file:
            return file.read([name])[name]

    def take(self, rows: npt.NDArray[np.intp]) -> pa.Table:
        """Return keys and times of some rows, by their ascending numbers."""
        parts, offset = [], 0
        with self._open() as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                selected = rows[(rows >= offset) & (rows < offset + batch.num_rows)] - offset
                keys = entity_rows(self.plan, pa.Table.from_batches([batch]))
                parts.append(keys.take(int64_array(selected)))
                offset += batch.num_rows
        return pa.concat_tables(parts)

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.storage.local_path(self.stored))


class UsableRows:
    """Iterates over the usable rows of a label table, in the order of their times, and counts rows by their use.

    Args:
        tables: all rows, in that order.

    Attributes:
        counts: as of ``Dataset``; complete after the last table.
    """

    def __init__(self, plan: FeaturePlan, tables: Iterable[pa.Table], now_us: int) -> None:
        self.counts: dict[str, int] = {}
        self._plan, self._tables, self._now_us = plan, tables, now_us

    def __iter__(self) -> Iterator[pa.Table]:
        """Yield the usable rows of each table, maybe none."""
        contradicting, pending = 0, None
        for table in self._tables:
            rows, counts = select_usable(self._plan, table, self._now_us)
            self.counts = {name: self.counts.get(name, 0) + count for name, count in counts.items()}
            yield rows
            # Contradicting rows have equal times, so rows before the last time are complete.
            pending = rows if pending is None else pa.concat_tables([pending, rows])
            if pending.num_rows:
                t = pending[TIME].to_numpy()
                complete = int(np.searchsorted(t, t[-1]))
                contradicting += count_contradictions(pending.slice(0, complete))
                pending = pending.slice(complete)
        if pending is not None:
            contradicting += count_contradictions(pending)
        self.counts["contradicting"] = contradicting


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


@dataclass(frozen=True, kw_only=True)
class TrainingDataBuilder(RowSource):
    """Builds the training set of a model as it could have been built at ``now_us``.

    Args:
        plan: all of the project.
        store: has the versions of logged vectors (``Outcomes.vectors``).
        on_rows: called with the number of joined rows and of all rows, if they are joined for the storage.
    """

    store: PackageStore | None = None
    on_rows: OnRows = lambda _done, _total: None

    @contextmanager
    def open(self) -> Iterator[TrainingData]:
        """Build it in memory, or in the storage if it is larger than DuckDB's memory limit.

        At the end of the block, a training set in the storage is deleted. After a kill or an error of the storage it
        stays, and the next call continues it, as of its start.

        Raises:
            SourceError, DefinitionError: as ``build``.
            StoreError: the storage or the database is unavailable.
        """
        self.views.check_filled(self._pinned)
        with self.open_stored() if self._is_large() else nullcontext(self.build()) as data:
            yield data

    def build(self) -> Dataset:
        """Build it in memory.

        Raises:
            SourceError: no label row is usable, the training or test rows are empty, or a view has never been filled.
            DefinitionError: the spec's group or a slice is not a key or request field.
        """
        pinned, spec, views = self._pinned, self.spec, self.views
        views.check_filled(pinned)
        label_rows = read_labels(self.connection, self.repo, pinned, self._labels.spec)
        rows, counts = select_usable(pinned, label_rows, self.now_us)
        counts["contradicting"] = count_contradictions(rows)
        counts |= self._labels.counts
        check_usable(spec, counts)
        entities = entity_rows(pinned, rows)
        logged = None
        if self.store is not None and has_logged_vectors(spec):
            logged = read_logged_vectors(self._log, self.store, rows[PREDICTION])
        reads = views.read(pinned, entities, spec.time_mode)
        dataset = assemble_dataset(pinned, spec, rows, reads, counts, self.now_us, logged)
        gap = measure_mode_gap(pinned, views, entities.filter(pa.array(dataset.test)))
        return replace(dataset, gap=gap, source=self._source(self.now_us))

    @contextmanager
    def open_stored(self) -> Iterator[StoredDataset]:
        """Build it in the storage; see ``open``."""
        state = self.views.state
        self.views.check_filled(self._pinned)
        name = self._name()
        # Another training of the same rows would delete them.
        with state.database.hold_lock(f"training set of {self.spec.name}"):
            delete_old_sets(state, self.now_us)
            delete_spilled(state)  # of killed trainings
            group_rows = count_block_rows(len(self._pinned.services[0].features))
            parts = StoredParts(state, name, self.now_us, group_rows)
            if parts.is_continued:
                started = from_us(parts.as_of_us).isoformat()
                _log.warning("interrupted_training_continues", model=self.spec.name, as_of=started)
            try:
                yield self._build(parts, group_rows)
            except SourceError:
                # Other data will be the remedy, so these rows must not be used again.
                parts.delete()
                raise
            parts.delete()

    @cached_property
    def _pinned(self) -> FeaturePlan:
        return self.plan.select_service(self.spec.service)

    @cached_property
    def _log(self) -> LabelledLog:
        views = self.views
        return LabelledLog(
            repo=self.repo, state=views.state, connection=self.connection, plan=self._pinned, spec=self.spec
        )

    @cached_property
    def _labels(self) -> ResolvedLabels:
        return resolve_labels(self._log, self.now_us)

    def _source(self, now_us: int) -> RowSource:
        return RowSource(
            connection=self.connection,
            repo=self.repo,
            plan=self._pinned,
            spec=self._labels.spec,
            views=self.views,
            now_us=now_us,
        )

    def _is_large(self) -> bool:
        if self.spec.algorithm not in STREAMED or has_logged_vectors(self.spec):
            return False
        pinned = self._pinned
        counted = query_labels(
            self.connection, self.repo, pinned, self._labels.spec, "SELECT count(*) AS n FROM labels"
        )
        size = counted["n"][0].as_py() * 8 * len(pinned.services[0].features)
        return bool(size > read_memory_limit(self.connection))

    def _name(self) -> str:
        """Return a name that only trainings of the same rows have, but for the time of their start."""
        spec = self.spec.as_dict()
        table = find_labels(self.repo, self._labels.spec, self._pinned)
        inputs = {name: spec[name] for name in ("name", "labels", "horizon", "time_mode")}
        return digest([self._pinned.hash, inputs, table.fingerprint()])

    def _build(self, parts: StoredParts, group_rows: int) -> StoredDataset:
        pinned, spec = self._pinned, self.spec
        labels = self._write_labels(parts)
        # The split by the time of the start, so that a continued training has the same test rows.
        fields = read_label_fields(spec, labels.column_names, labels.read_column, parts.as_of_us)
        files = self._join(labels, parts, group_rows)
        names, vocabularies = Assembler(pinned, {}).labels, _read_vocabularies(pinned, files, fields["train"])
        assembler = Assembler(pinned, vocabularies)
        test = np.flatnonzero(fields["test"])
        sample = test[spread_indices(len(test))]
        return StoredDataset(
            plan=pinned,
            names=names,
            vocabularies=vocabularies,
            matrix=StoredMatrix(files, names, assembler.codes),
            files=files,
            counts={**parts.counts, **self._labels.counts},
            status=merge_status(parts.parts),
            gap=measure_mode_gap(pinned, self.views, labels.take(sample)) if pinned.windows else None,
            source=self._source(parts.as_of_us),
            as_of_us=parts.as_of_us,
            **fields,
        )

    def _write_labels(self, parts: StoredParts) -> StoredLabels:
        """Return the label rows, which are written unless an interrupted training has done it."""
        if not parts.is_continued:
            tables = stream_labels(self.connection, self.repo, self._pinned, self._labels.spec)
            usable = UsableRows(self._pinned, tables, parts.as_of_us)
            parts.add_rows(usable, lambda: usable.counts)
        check_usable(self.spec, parts.counts)
        name = f"label table of model {self.spec.name!r}"
        return StoredLabels(storage=self.views.state.storage, stored=parts.objects[0], plan=self._pinned, name=name)

    def _join(self, labels: StoredLabels, parts: StoredParts, group_rows: int) -> MatrixFiles:
        """Return the files of the features, of which the missing ones are written."""
        files = DatasetFiles(
            connection=self.connection,
            views=self.views,
            plan=self._pinned,
            entities=labels,
            mode=self.spec.time_mode,
            # Of a continued training set, the parts keep their limits, whatever the memory is now.
            part_rows=parts.identity.get("part_rows"),
            # A search and a part are in memory about three times, in addition to DuckDB.
            most_bytes=read_memory_limit(self.connection) // 8,
        )
        files.columns()  # checks the names
        files.write_parts(parts, labels.count(), self.on_rows)
        return MatrixFiles(
            storage=self.views.state.storage,
            objects=tuple(parts.objects[1:]),
            rows=tuple(part.rows for part in parts.parts),
            block_rows=group_rows,
            scratch=spill_folder(self.views.state),
        )


def _read_vocabularies(plan: FeaturePlan, files: MatrixFiles, train: np.ndarray) -> Vocabularies:
    """Return the vocabulary of each text feature: its sorted words in the training rows, as ``Assembler`` does."""
    assembler = Assembler(plan, {})
    rows = StoredMatrix(files, assembler.labels, {}).select(train)
    return {name: sorted(rows.read_words(name)) for name in (assembler.labels[i] for i in assembler.categorical)}
