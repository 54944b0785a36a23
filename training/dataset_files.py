"""Builds datasets larger than memory: joins entity rows part by part and writes each part to Parquet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from skewless.contract.arrow_types import arrow_type
from skewless.contract.columns import FeatureRef
from skewless.contract.errors import SourceError
from skewless.contract.names import check_known
from skewless.contract.plan import FeaturePlan
from skewless.contract.rows import ViewRead
from skewless.contract.spec import TimeMode
from skewless.contract.status import count_statuses
from skewless.contract.vector import Assembler, null_mask, view_status
from skewless.infra.definitions.plans.applied_plan import AppliedPlan
from skewless.infra.reads.offline.entity_file import EntityFile, EntityFileRows, EntitySource
from skewless.infra.reads.offline.views import LogExtents, LogSnapshot, OfflineViews
from skewless.training.dataset_folder import DatasetFolder, DatasetParts, merge_status
from skewless.training.mode_gap import ModeGap, measure_mode_gap, spread_indices

if TYPE_CHECKING:
    import duckdb

OnRows = Callable[[int, int], None]

# Entity rows of one search: each search reads the key and time columns of the complete log.
SEARCH_BYTES = 256_000_000
# Rows of one part, which reads the value columns of its rows; building it takes about three times this memory.
PART_BYTES = 256_000_000
LEAST_ROWS = 50_000


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """The contents of a dataset folder, after a run or in its preview.

    Args:
        rows: entity rows.
        written: rows that this run wrote; earlier runs wrote the others.
        columns: names of all columns, the entity file's first.
        status: per view, reads by status.
        mode_gap: difference of the time modes; None without windowed views, and in a preview.
    """

    rows: int
    written: int
    parts: int
    columns: tuple[str, ...]
    status: Mapping[str, Mapping[str, int]]
    mode_gap: ModeGap | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetFiles:
    """Writes the rows of an entity file with the features of one service.

    Args:
        plan: plan of the service (``FeaturePlan.only``).
        mode: the time from which a feature row counts, as in ``ModelSpec.time_mode``.
        part_rows: rows of a part; by default as many as fit in about ``PART_BYTES``.
        most_bytes: use this instead of ``PART_BYTES`` and ``SEARCH_BYTES`` where it is less.
    """

    connection: duckdb.DuckDBPyConnection
    views: OfflineViews
    plan: FeaturePlan
    entities: EntitySource
    mode: TimeMode = "knowledge"
    part_rows: int | None = None
    most_bytes: int | None = None

    def columns(self) -> tuple[str, ...]:
        """Return the names of all columns, the entity file's first.

        Raises:
            SourceError: the entity file has a column with the name of a feature.
        """
        entity_columns, labels = self.entities.columns, [ref.label for ref in self._refs]
        check_names(self.entities.name, entity_columns, labels)
        return (*entity_columns, *labels)

    def preview(self, out: Path) -> DatasetReport:
        """Return the report that ``write`` would give; nothing is changed.

        Raises:
            SourceError: the entity file is invalid.
            PlaceError: the folder has other contents.
        """
        folder = DatasetFolder(out)
        folder.read_manifest()
        rows, size = self.entities.count(), self._part_rows
        remaining = rows - folder.rows
        return DatasetReport(
            rows=rows,
            written=remaining,
            parts=len(folder.parts) + -(-remaining // size),
            columns=self.columns(),
            status=merge_status(folder.parts),
        )

    def write(self, out: Path, on_rows: OnRows = lambda _done, _total: None) -> DatasetReport:
        """Write the missing parts; run it again after an interruption.

        Views are read as they were at the start of the dataset, so interruptions do not change it.

        Args:
            out: a new or empty folder, or the folder of an interrupted run.
            on_rows: called with the number of finished rows and of all rows.

        Raises:
            SourceError: the entity file is invalid.
            PlaceError, ConflictError: the folder has other contents.
            StoreError: the disk refused the write.
        """
        # Checked twice: here before the lock, which creates the folder, and before rows are counted; and again under
        # the lock, because another run may have written parts meanwhile.
        DatasetFolder(out).read_manifest()
        # Both also check the entity file, so that an invalid file is rejected before anything is written.
        columns, total = self.columns(), self.entities.count()
        folder = DatasetFolder(out)
        with folder.lock():
            folder.read_manifest()
            rows_before = folder.rows
            self.write_parts(folder, total, on_rows)
        return DatasetReport(
            rows=total,
            written=total - rows_before,
            parts=len(folder.parts),
            columns=columns,
            status=merge_status(folder.parts),
            mode_gap=self._gap(total, folder.identity.get("logs", {})),
        )

    def write_parts(self, folder: DatasetParts, total: int, on_rows: OnRows = lambda _done, _total: None) -> None:
        """Write the missing parts; ``write`` for a dataset that is opened and locked already.

        Args:
            total: number of all rows.

        Raises:
            ConflictError: the parts are those of other rows.
            StoreError: the storage refused the write.
        """
        folder.open(self._identity(folder, total))
        if not folder.complete:
            self._write_missing(folder, total, on_rows)
            folder.finish()

    def _gap(self, total: int, logs: Mapping[str, Mapping[str, int]]) -> ModeGap | None:
        """Return the difference of the time modes on evenly spread rows of the file."""
        if not self.plan.windows or not total:
            return None
        indices, samples, offset = spread_indices(total), [], 0
        for rows in self.entities.read(self._part_rows):
            selected = indices[(indices >= offset) & (indices < offset + rows.keys.num_rows)] - offset
            samples.append(rows.keys.take(pa.array(selected)))
            offset += rows.keys.num_rows
        return measure_mode_gap(self.plan, self.views, pa.concat_tables(samples), logs)

    def _write_missing(self, folder: DatasetParts, total: int, on_rows: OnRows) -> None:
        marks = {name: LogSnapshot(**mark) for name, mark in folder.identity["views"].items()}
        extents = LogExtents(views=marks, windows=folder.identity.get("logs", {}))
        size, offset = self._part_rows, 0
        on_rows(folder.rows, total)
        # A whole number of parts, so that no part crosses two searches, and a continued run finds the same limits.
        search_size = _rows_in_bytes(self._limit(SEARCH_BYTES), self.entities.width)
        for search_rows in self.entities.read(size * max(1, search_size // size)):
            # Rows of finished parts are skipped; the part size is in the identity, so parts have fixed limits.
            skip = min(max(0, folder.rows - offset), search_rows.own.num_rows)
            offset += search_rows.own.num_rows
            if skip == search_rows.own.num_rows:
                continue
            # Of all rows, also after an interruption: so an engine finds the results of the interrupted search.
            with self.views.search(self.plan, search_rows.keys, self.mode, extents) as read_rows:
                for first in range(skip, search_rows.own.num_rows, size):
                    table, status = self._build_part(search_rows.slice(first, size), read_rows(first, size))
                    folder.add(table, status)
                    on_rows(folder.rows, total)

    def join(self, rows: EntityFileRows, extents: LogExtents) -> pa.Table:
        """Return entity rows with their features, in order."""
        with self.views.search(self.plan, rows.keys, self.mode, extents) as read_rows:
            return self._build_part(rows, read_rows(0, rows.own.num_rows))[0]

    def _build_part(
        self, rows: EntityFileRows, reads: Mapping[str, ViewRead]
    ) -> tuple[pa.Table, dict[str, dict[str, int]]]:
        status = {view.name: view_status(reads[view.name], rows.t, view.ttl_us) for view in self.plan.all_views}
        transformed = {}
        if any(ref.group not in reads for ref in self._refs):
            transformed = dict(Assembler(self.plan, {}).assemble_columns(rows.t, reads, rows.request))
        table = rows.own
        for ref in self._refs:
            if ref.group in reads:
                read = reads[ref.group]
                is_null = null_mask(read, status[ref.group], ref.name)  # unless its status is PRESENT
                column = pa.array(read.values[ref.name], arrow_type(self.plan.dtype(ref)), mask=is_null)
            else:
                column = pa.array(transformed[ref.label])
            table = table.append_column(ref.label, column)
        return table, {name: count_statuses(statuses) for name, statuses in status.items()}

    def _identity(self, folder: DatasetParts, total: int) -> dict[str, Any]:
        """Return all inputs that determine the rows; log positions are those of the start of the dataset."""
        stored = folder.identity.get("views", {})
        snapshots = {view.name: self.views.take_snapshot(view) for view in self.plan.views}
        return {
            "plan": self.plan.hash,
            "service": self.plan.services[0].name,
            "mode": self.mode,
            "entities": self.entities.fingerprint(),
            "time": self.entities.time_column,
            "rows": total,
            "part_rows": self._part_rows,
            "views": {
                name: stored.get(name, {"end": mark.end, "run_id": mark.run_id}) for name, mark in snapshots.items()
            },
            **self._logs(folder),
        }

    def _logs(self, folder: DatasetParts) -> dict[str, Any]:
        """Return the log positions up to which the events of windowed views count."""
        stored = folder.identity.get("logs", {})
        if not self.plan.windows:
            return {}
        return {
            "logs": {view.name: stored.get(view.name) or dict(self.views.log_ends(view)) for view in self.plan.windows}
        }

    @property
    def _part_rows(self) -> int:
        return self.part_rows or _rows_in_bytes(self._limit(PART_BYTES), self.entities.width + len(self._refs))

    def _limit(self, size: int) -> int:
        return size if self.most_bytes is None else min(size, self.most_bytes)

    @property
    def _refs(self) -> tuple[FeatureRef, ...]:
        return self.plan.services[0].features


def check_names(owner: str, columns: Iterable[str], labels: Collection[str]) -> None:
    """Check that columns of entity rows can be in one table with features.

    Raises:
        SourceError: a column has the name of a feature, or a reserved name.
    """
    for name in columns:
        if name in labels or name.startswith("__"):
            raise SourceError(
                owner,
                "has a column with a reserved name",
                value=name,
                fix="rename it: feature columns are named view__feature, and names that begin with __ are reserved",
            )


def find_service(applied: AppliedPlan, name: str) -> FeaturePlan:
    """Return the plan of a service, or of a model's.

    Raises:
        RequestError: the service or model does not exist.
    """
    services = {spec.name: spec.service for spec in applied.models}
    services |= {service.name: service.name for service in applied.plan.services}
    check_known("name", name, services, problem="is neither a feature service nor a model")
    return applied.plan.select_service(services[name])


def open_dataset_files(
    connection: duckdb.DuckDBPyConnection,
    views: OfflineViews,
    applied: AppliedPlan,
    entities: Path,
    name: str,
    *,
    mode: TimeMode,
    time_column: str,
) -> DatasetFiles:
    """Return the writer of a dataset from an entity file, with the features of a service or of a model.

    Raises:
        RequestError: the service or model does not exist.
        SourceError: the file is missing or invalid, or lacks a column; or a view has never been filled.
    """
    plan = find_service(applied, name)
    views.check_filled(plan)
    rows = EntityFile.find(connection, entities, plan, time_column)
    return DatasetFiles(connection=connection, views=views, plan=plan, entities=rows, mode=mode)


def _rows_in_bytes(size: int, columns: int) -> int:
    """Return how many rows with a number of columns fit into ``size`` bytes."""
    return max(LEAST_ROWS, size // (8 * columns))
