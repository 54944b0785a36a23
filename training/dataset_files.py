"""Datasets larger than memory: entity rows joined part by part, written to Parquet as it goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from skewless.contract.arrow_types import arrow_type
from skewless.contract.columns import FeatureRef
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.names import check_known
from skewless.contract.plan import FeaturePlan
from skewless.contract.rows import ViewRead
from skewless.contract.spec import TimeMode
from skewless.contract.status import Int64Array, StatusArray, count_statuses
from skewless.contract.vector import Assembler, null_mask, view_status
from skewless.infra.offline.entity_file import EntityFile, EntityFileRows
from skewless.infra.offline.views import LogSnapshot, OfflineViews
from skewless.infra.plans.applied_plan import AppliedPlan
from skewless.training.dataset_folder import DatasetFolder, merge_status
from skewless.training.mode_gap import ModeGap, mode_gap, spread

if TYPE_CHECKING:
    import duckdb

OnRows = Callable[[int, int], None]

# Entity rows that are sought at once: each search reads the narrow columns of the whole log.
SEARCH_BYTES = 256_000_000
# A part takes about three times this while it is put together: each reads the wide columns of its rows.
PART_BYTES = 256_000_000
LEAST_ROWS = 50_000


@dataclass(frozen=True, kw_only=True)
class DatasetReport:
    """What stands in the folder, or would.

    Args:
        rows: entity rows.
        written: rows that this run wrote; the others stood before.
        columns: names of all columns, the entity file's first.
        status: per view, reads by status.
        mode_gap: how the time modes differ; None without windowed views, and where nothing was written.
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
        plan: of the service (``FeaturePlan.only``).
        mode: from when on a feature row counts; as ``ModelSpec.time_mode``.
        part_rows: rows of a part; by default as many as fit in about ``PART_BYTES``.
    """

    connection: duckdb.DuckDBPyConnection
    views: OfflineViews
    plan: FeaturePlan
    entities: EntityFile
    mode: TimeMode = "knowledge"
    part_rows: int | None = None

    def columns(self) -> tuple[str, ...]:
        """Return the names of all columns, the entity file's first.

        Raises:
            SourceError: the entity file has a column with the name of a feature.
        """
        own, labels = list(self.entities.types), [ref.label for ref in self._refs]
        for name in own:
            if name in labels or name.startswith("__"):
                raise SourceError(
                    self.entities.table.name,
                    "has a column whose name is taken",
                    value=name,
                    fix="rename it: feature columns are called view__feature, and __ begins our own",
                )
        return (*own, *labels)

    def foresee(self, out: Path) -> DatasetReport:
        """Return what ``write`` would leave; nothing is changed.

        Raises:
            SourceError: the entity file is not as it should be.
            PlaceError: the folder holds other things.
        """
        folder = DatasetFolder(out)
        folder.look()
        rows, size = self.entities.count(), self._part_rows
        left = rows - folder.rows
        return DatasetReport(
            rows=rows,
            written=left,
            parts=len(folder.parts) + -(-left // size),
            columns=self.columns(),
            status=merge_status(folder.parts),
        )

    def write(self, out: Path, on_rows: OnRows = lambda _done, _total: None) -> DatasetReport:
        """Write the parts that are missing; run it again after an interruption.

        Views are read as they were when the dataset was begun, so that it is the same however often it
        was interrupted.

        Args:
            out: a new or empty folder, or one where this dataset was begun.
            on_rows: told how many rows of how many are done.

        Raises:
            SourceError: the entity file is not as it should be.
            PlaceError, ConflictError: the folder holds other things.
            StoreError: the disk refused.
        """
        DatasetFolder(out).look()
        columns, total = self.columns(), self.entities.count()
        folder = DatasetFolder(out)
        with folder.locked():
            folder.look()
            folder.open(self._identity(folder, total))
            before = folder.rows
            if not folder.complete:
                self._write_parts(folder, total, on_rows)
                folder.finish()
        return DatasetReport(
            rows=total,
            written=total - before,
            parts=len(folder.parts),
            columns=columns,
            status=merge_status(folder.parts),
            mode_gap=self._gap(total, folder.identity.get("logs", {})),
        )

    def _gap(self, total: int, logs: Mapping[str, Mapping[str, int]]) -> ModeGap | None:
        """Return how the modes differ on rows that are evenly spread over the file."""
        if not self.plan.windows or not total:
            return None
        wanted, some, passed = spread(total), [], 0
        for rows in self.entities.read(self._part_rows):
            inside = wanted[(wanted >= passed) & (wanted < passed + rows.keys.num_rows)] - passed
            some.append(rows.keys.take(pa.array(inside)))
            passed += rows.keys.num_rows
        return mode_gap(self.plan, self.views, pa.concat_tables(some), logs)

    def _write_parts(self, folder: DatasetFolder, total: int, on_rows: OnRows) -> None:
        marks = {name: LogSnapshot(**mark) for name, mark in folder.identity["views"].items()}
        size, passed = self._part_rows, 0
        on_rows(folder.rows, total)
        for some in self.entities.read(size * max(1, _rows(SEARCH_BYTES, len(self.entities.types)) // size)):
            skip = min(max(0, folder.rows - passed), some.own.num_rows)
            passed += some.own.num_rows
            if skip == some.own.num_rows:
                continue
            rest = some.slice(skip, some.own.num_rows - skip)
            found = {
                view.name: self.views.find(view, rest.keys, self.mode, marks[view.name]) for view in self.plan.views
            }
            for first in range(0, rest.own.num_rows, size):
                part = rest.slice(first, size)
                windows = {
                    view.name: self.views.read_window(view, part.keys, self.mode, folder.identity["logs"][view.name])
                    for view in self.plan.windows
                }
                ids_of = {name: ids[first : first + size] for name, ids in found.items()}
                table, status = self._joined(part, ids_of, windows)
                folder.add(table, status)
                on_rows(folder.rows, total)

    def _joined(
        self, rows: EntityFileRows, found: Mapping[str, Int64Array], windows: Mapping[str, ViewRead]
    ) -> tuple[pa.Table, dict[str, dict[str, int]]]:
        reads = {view.name: self.views.at(view, found[view.name]) for view in self.plan.views} | dict(windows)
        status = {view.name: view_status(reads[view.name], rows.t, view.ttl_us) for view in self.plan.all_views}
        made = {}
        if any(ref.group not in reads for ref in self._refs):
            made = dict(Assembler(self.plan, {}).columns(rows.t, reads, rows.request))
        table = rows.own
        for ref in self._refs:
            if ref.group in reads:
                column = _feature(reads[ref.group], status[ref.group], ref.name, self.plan.dtype(ref))
            else:
                column = pa.array(made[ref.label])
            table = table.append_column(ref.label, column)
        return table, {name: count_statuses(each) for name, each in status.items()}

    def _identity(self, folder: DatasetFolder, total: int) -> dict[str, Any]:
        """Return what the rows follow from; logs as they were when the dataset was begun."""
        known = folder.identity.get("views", {})
        marks = {view.name: self.views.mark(view) for view in self.plan.views}
        return {
            "plan": self.plan.hash,
            "service": self.plan.services[0].name,
            "mode": self.mode,
            "entities": self.entities.table.fingerprint(),
            "time": self.entities.time_column,
            "rows": total,
            "part_rows": self._part_rows,
            "views": {name: known.get(name, {"end": mark.end, "run_id": mark.run_id}) for name, mark in marks.items()},
            **self._logs(folder),
        }

    def _logs(self, folder: DatasetFolder) -> dict[str, Any]:
        """Return up to where the events of windowed views count."""
        known = folder.identity.get("logs", {})
        if not self.plan.windows:
            return {}
        return {
            "logs": {view.name: known.get(view.name) or dict(self.views.log_ends(view)) for view in self.plan.windows}
        }

    @property
    def _part_rows(self) -> int:
        return self.part_rows or _rows(PART_BYTES, len(self.entities.types) + len(self._refs))

    @property
    def _refs(self) -> tuple[FeatureRef, ...]:
        return self.plan.services[0].features


def find_files(
    connection: duckdb.DuckDBPyConnection,
    views: OfflineViews,
    applied: AppliedPlan,
    entities: Path,
    name: str,
    *,
    mode: TimeMode,
    time_column: str,
) -> DatasetFiles:
    """Return what writes an entity file with the features of a service, or of a model's.

    Raises:
        RequestError: there is no such service or model.
        SourceError: the file is missing or broken, or lacks a column.
    """
    services = {spec.name: spec.service for spec in applied.models}
    services |= {service.name: service.name for service in applied.plan.services}
    check_known("name", name, services, problem="is neither a feature service nor a model")
    plan = applied.plan.only(services[name])
    rows = EntityFile.find(connection, entities, plan, time_column)
    return DatasetFiles(connection=connection, views=views, plan=plan, entities=rows, mode=mode)


def _rows(size: int, columns: int) -> int:
    """Return how many rows of so many columns take about so many bytes."""
    return max(LEAST_ROWS, size // (8 * columns))


def _feature(read: ViewRead, status: StatusArray, name: str, dtype: DType) -> pa.Array:
    """Return one feature in its own type; null for all but PRESENT."""
    return pa.array(read.values[name], arrow_type(dtype), mask=null_mask(read, status, name))
