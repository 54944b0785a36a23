"""Point-in-time reads of many entity rows by tasks: each reads one view for the entities of its buckets.

Entities are independent, so the parts together have the bits of one read of all rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import filled_numbers, find_nulls, int64_array, shared_numbers
from skewless.contract.buckets import find_buckets
from skewless.contract.columns import digest
from skewless.contract.errors import StoreError
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.reads import build_window_read
from skewless.contract.rows import ViewRead, empty_read
from skewless.contract.status import Int64Array
from skewless.contract.windows.view import WindowView
from skewless.infra.log.bucket_order import BUCKET, measure_sorted
from skewless.infra.log.log_columns import CREATED, EVENT, RUN, SEQ, TOMBSTONE
from skewless.infra.platform.storage.objects import ObjectStorage, StoredObject
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.engines.engine import Engine, open_project
from skewless.infra.reads.engines.results import digest_table, read_table, write_table
from skewless.infra.reads.engines.task import Task, TaskResult
from skewless.infra.reads.offline.arrays import build_view_read
from skewless.infra.reads.offline.as_of import ROW, TIME
from skewless.infra.reads.offline.engine import read_memory_limit
from skewless.infra.reads.offline.join import Order
from skewless.infra.reads.offline.matched_rows import HistoryRows
from skewless.infra.reads.offline.views import LogExtents, LogSnapshot, OfflineViews, ReadRows

if TYPE_CHECKING:
    import duckdb

READ_VIEW = "read_view"
_TASKS = 4
_MOSTLY = 0.9
_HAS_KEY = "__has_key"


class EngineViews(OfflineViews):
    """Reads views as ``OfflineViews``, but searches for many entity rows on an engine.

    Attributes:
        results: the results of the tasks of the last search, to measure it.
    """

    def __init__(self, state: ProjectState, connection: duckdb.DuckDBPyConnection, engine: Engine) -> None:
        super().__init__(state, connection)
        self.engine = engine
        self.results: Sequence[TaskResult] = ()

    @contextmanager
    def search(self, plan: FeaturePlan, entities: pa.Table, order: Order, extents: LogExtents) -> Iterator[ReadRows]:
        """Search on the engine if there are many rows, otherwise in this process."""
        if not self._is_large(plan, entities):
            with super().search(plan, entities, order, extents) as read_rows:
                yield read_rows
            return
        total = entities.num_rows * len(plan.all_views)
        planned = partial(self._plan_tasks, plan, entities, order, extents)
        with self.engine.run(READ_VIEW, "reading views", total, planned) as self.results:
            yield partial(self._read_rows, plan, entities, self.results)

    def _is_large(self, plan: FeaturePlan, entities: pa.Table) -> bool:
        """Return whether the rows of entities and logs together are too many for this process alone."""
        # A few entity rows read little of a log, and are not worth a question to the database.
        if entities.num_rows <= self.engine.settings.engine_rows // 1_000:
            return False
        rows = sum(entities.num_rows + self.log(view).next_seq() for view in plan.views)
        rows += sum(entities.num_rows + sum(self.log_ends(view).values()) for view in plan.windows)
        return self.engine.is_large(rows)

    def _plan_tasks(self, plan: FeaturePlan, entities: pa.Table, order: Order, extents: LogExtents) -> list[Task]:
        memory = read_memory_limit(self.connection)
        stored: dict[tuple[str, ...], StoredObject] = {}
        tasks = []
        for view in plan.all_views:
            alone, keys = plan_of(view, plan.project, plan.buckets), tuple(column.name for column in view.keys)
            snapshot = self._snapshot(view, extents)
            if keys not in stored:
                table = sort_by_bucket(entities, keys, plan.buckets)
                folder, name = f"inputs-{digest([plan.hash, order, snapshot, keys])}", digest_table(table)
                stored[keys] = write_table(self.state.storage, folder, table, name)
            # The result of a task is in memory twice: as it was read, and in the order of the rows.
            size = entities.num_rows * 8 * (len(view.features) + 8) * 2
            tasks += self.engine.split(
                READ_VIEW,
                plan.buckets,
                connection=self.connection,
                plan=alone.hash,
                snapshot=snapshot,
                parameters={"plan": alone.as_dict(), "order": order},
                inputs=(stored[keys],),
                least=-(-size // memory),
                per_worker=self._choose_tasks(view, plan.buckets),
            )
        return tasks

    def _choose_tasks(self, view: View | WindowView, buckets: int) -> int:
        """Return the number of tasks for each worker.

        More tasks end together, although some have hot keys. But each reads all files that are not sorted by bucket.
        """
        if isinstance(view, WindowView):
            files = [file for part in self.log_partitions(view) for file in part.files]
        else:
            files = self.log(view).files()
        return _TASKS if measure_sorted(files, view.keys, buckets) >= _MOSTLY else 1

    def _snapshot(self, view: View | WindowView, extents: LogExtents) -> dict[str, Any]:
        """Return the rows of a view's log that count, and the files that have them now.

        The files change if rows are erased: results from before must not be used then.
        """
        if isinstance(view, WindowView):
            ends = dict(extents.windows.get(view.name) or self.log_ends(view))
            files = [part.files for part in self.log_partitions(view)]
            return {"ends": ends, "files": digest([Path(file).name for part in files for file in part])}
        mark = extents.views.get(view.name) or self.take_snapshot(view)
        return asdict(mark) | {"files": digest([Path(file).name for file in self.log(view).files()])}

    def _read_rows(
        self, plan: FeaturePlan, entities: pa.Table, results: Sequence[TaskResult], first: int, count: int
    ) -> dict[str, ViewRead]:
        t = shared_numbers(entities.slice(first, count)[TIME].combine_chunks(), 0).astype(np.int64)
        return {view.name: _decode(view, self._read_view(view, results, first, len(t)), t) for view in plan.all_views}

    def _read_view(self, view: View | WindowView, results: Sequence[TaskResult], first: int, count: int) -> pa.Table:
        """Return the results of a view for some entity rows, in their order."""
        parts, places = [], []
        for result in results:
            if result.values["view"] == view.name:
                table = read_table(self.state.storage, result.objects[0])
                part = _select_range(table, ROW, first, first + count)
                parts.append(part.drop_columns([ROW]))
                places.append(filled_numbers(part[ROW], 0) - first)
        place = np.concatenate(places)
        if not np.array_equal(np.sort(place), np.arange(count)):
            raise StoreError(f"result of view {view.name!r}", "lacks rows", fix="run the command again")
        return pa.concat_tables(parts).take(int64_array(np.argsort(place, kind="stable")))


def read_view(task: Task) -> TaskResult:
    """Read one view for the entity rows of some buckets; the result is a table of the rows, in their order."""
    plan = FeaturePlan.from_dict(task.parameters["plan"])
    views = open_project(task, plan.buckets).views
    storage = views.state.storage
    (view,) = plan.all_views
    began = time.perf_counter()
    entities = read_buckets(storage, task)
    read_s, began = time.perf_counter() - began, time.perf_counter()
    views.join.read_s = 0.0
    table = _encode(views, view, entities, task)
    order = np.argsort(filled_numbers(entities[ROW], 0), kind="stable")
    table = table.append_column(ROW, entities[ROW]).take(int64_array(order))
    # Of a latest-value view, DuckDB does all the work.
    waited_s = views.join.read_s if isinstance(view, WindowView) else time.perf_counter() - began
    compute_s, began = time.perf_counter() - began - waited_s, time.perf_counter()
    checked = digest_table(table)
    stored = write_table(storage, task.job, table)
    return TaskResult(
        objects=(stored,),
        rows=table.num_rows,
        digest=checked,
        values={"view": view.name},
        read_s=read_s + waited_s,
        compute_s=compute_s,
        write_s=time.perf_counter() - began,
    )


def _encode(views: OfflineViews, view: View | WindowView, entities: pa.Table, task: Task) -> pa.Table:
    order: Order = task.parameters["order"]
    if isinstance(view, WindowView):
        read = views.read_window(view, entities, order, task.snapshot["ends"])
        columns = {name: _floats(values) for name, values in read.values.items()}
        return pa.table(columns | {_HAS_KEY: int64_array(read.has_row.astype(np.int64))})
    mark = LogSnapshot(end=task.snapshot["end"], run_id=task.snapshot["run_id"])
    positions = views.find_positions(view, entities, order, mark)
    names = [EVENT, CREATED, SEQ, RUN, TOMBSTONE, *(column.name for column in view.features)]
    return views.read_columns(view, positions, names)


def _decode(view: View | WindowView, rows: pa.Table, t: Int64Array) -> ViewRead:
    """Return a read from the table that ``_encode`` has made of it."""
    if isinstance(view, WindowView):
        features = np.stack([filled_numbers(rows[column.name], 0) for column in view.features], axis=1)
        has_key = filled_numbers(rows[_HAS_KEY], 0).astype(np.bool_)
        return replace(build_window_read(view, features, t, has_key), unavailable=None)
    has_match = ~find_nulls(rows[SEQ])
    if not has_match.any():
        return empty_read(view, len(t), available=True)
    matched = HistoryRows(table=rows, at=np.where(has_match, np.arange(len(t)), len(t)))
    return build_view_read(view, int(has_match.sum()), lambda _: matched)


def plan_of(view: View | WindowView, project: str, buckets: int) -> FeaturePlan:
    """Return a plan of one view, to send it to a worker."""
    own: Mapping[str, Any] = {"windows": (view,)} if isinstance(view, WindowView) else {"views": (view,)}
    empty = FeaturePlan(project=project, views=(), request=(), transforms=(), services=(), buckets=buckets)
    return replace(empty, **own)


def sort_by_bucket(entities: pa.Table, keys: Sequence[str], buckets: int) -> pa.Table:
    """Return key columns, times (if there are any) and row numbers, by bucket: a task reads a slice of them."""
    bucket = find_buckets([entities[key] for key in keys], buckets)
    order = np.argsort(bucket, kind="stable")
    times = [TIME] if TIME in entities.column_names else []
    rows = entities.select([*keys, *times]).take(int64_array(order))
    return rows.append_column(ROW, int64_array(order)).append_column(BUCKET, int64_array(bucket[order]))


def read_buckets(storage: ObjectStorage, task: Task) -> pa.Table:
    """Return the rows of a task's buckets from its first input, which ``sort_by_bucket`` has made."""
    return _select_range(read_table(storage, task.inputs[0]), BUCKET, task.first, task.end)


def bucket_rows(rows: pa.Table) -> Int64Array:
    """Return the number that each row of ``read_buckets`` had among all rows."""
    return filled_numbers(rows[ROW], 0)


def _select_range(table: pa.Table, column: str, first: int, end: int) -> pa.Table:
    """Return the rows with ``first <= column < end`` of a table that is sorted by an integer column."""
    # Chunk by chunk, without a copy: the table may be larger than memory.
    chunks = [shared_numbers(chunk, 0) for chunk in table[column].chunks]
    low, high = (sum(int(np.searchsorted(chunk, edge)) for chunk in chunks) for edge in (first, end))
    return table.slice(low, high - low)


def _floats(values: np.ndarray) -> pa.Array:
    data = np.ascontiguousarray(values, np.float64)
    return pa.Array.from_buffers(pa.float64(), len(data), [None, pa.py_buffer(data)])
