"""Point-in-time reads of many entity rows by tasks: each reads one view for the entities of its buckets.

Entities are independent, so the parts together have the bits of one read of all rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from skewless.contract.arrow_numbers import filled_numbers, find_nulls, int64_array, shared_numbers
from skewless.contract.buckets import find_buckets, split_buckets
from skewless.contract.columns import digest
from skewless.contract.errors import StoreError
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.reads import build_window_read
from skewless.contract.rows import ViewRead, empty_read
from skewless.contract.settings import Settings, load_settings
from skewless.contract.status import Int64Array
from skewless.contract.windows.view import WindowView
from skewless.infra.engines.job import Jobs, spill_folder
from skewless.infra.engines.port import Executor
from skewless.infra.engines.results import digest_table, read_table, write_table
from skewless.infra.engines.task import Task, TaskResult
from skewless.infra.log.log_columns import CREATED, EVENT, RUN, SEQ, TOMBSTONE
from skewless.infra.offline.arrays import build_view_read
from skewless.infra.offline.as_of import ROW, TIME
from skewless.infra.offline.engine import connect
from skewless.infra.offline.join import Order
from skewless.infra.offline.matched_rows import HistoryRows, read_memory_limit
from skewless.infra.offline.views import LogExtents, LogSnapshot, OfflineViews, ViewSearch
from skewless.infra.storage.objects import StoredObject
from skewless.infra.storage.project_state import ProjectState

if TYPE_CHECKING:
    import duckdb

READ_VIEW = "read_view"
_BUCKET = "__bucket"
_HAS_KEY = "__has_key"
_LEAST_MEMORY = 256_000_000
OnRows = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """The engine of a project's large work.

    Args:
        open: opens the executor; called for the first large work.
        repo: folder of the project.
        settings: of the project.
        on_progress: called with the current activity, the rows done, and the rows in all.
    """

    open: Callable[[], Executor]
    repo: Path
    settings: Settings
    on_progress: Callable[[str, int, int], None]

    def worker_settings(self, memory_bytes: int) -> dict[str, Any]:
        """Return the settings of a worker: the project's, with its share of memory and cores on one machine."""
        own = self.settings.model_dump(mode="json", exclude_defaults=True)
        executor = self.open()
        if executor.name != "processes" or executor.workers == 1:
            return own
        share = max(_LEAST_MEMORY, memory_bytes // executor.workers)
        return own | {"memory_limit": f"{share // 1_000_000}MB", "threads": 1}


class EngineViews(OfflineViews):
    """Reads views as ``OfflineViews``, but searches for many entity rows on an engine.

    Attributes:
        results: the results of the tasks of the last search, to measure it.
    """

    def __init__(self, state: ProjectState, connection: duckdb.DuckDBPyConnection, engine: Engine) -> None:
        super().__init__(state, connection)
        self._engine = engine
        self.results: Sequence[TaskResult] = ()

    @contextmanager
    def search(self, plan: FeaturePlan, entities: pa.Table, order: Order, extents: LogExtents) -> Iterator[ViewSearch]:
        """Search on the engine if there are many rows, otherwise in this process."""
        if not self._is_large(plan, entities):
            with super().search(plan, entities, order, extents) as search:
                yield search
            return
        done = 0

        def on_result(result: TaskResult) -> None:
            nonlocal done
            done += result.rows
            self._engine.on_progress("reading views", done, entities.num_rows * len(plan.all_views))

        jobs = Jobs(state=self.state, executor=self._engine.open())
        with jobs.run(lambda: self._plan_tasks(plan, entities, order, extents), on_result) as self.results:
            yield _EngineSearch(self.state, plan, entities, self.results)

    def _is_large(self, plan: FeaturePlan, entities: pa.Table) -> bool:
        """Return whether the rows of entities and logs together are too many for this process alone.

        The start of the workers takes a second, and each of them reads the log.
        """
        least = self._engine.settings.engine_rows
        # A few entity rows read little of a log, and are not worth a question to the database.
        if entities.num_rows <= least // 1_000:
            return False
        rows = sum(entities.num_rows + self.log(view).next_seq() for view in plan.views)
        rows += sum(entities.num_rows + sum(self.log_ends(view).values()) for view in plan.windows)
        return rows >= least and (self._engine.open().workers > 1 or not least)

    def _plan_tasks(self, plan: FeaturePlan, entities: pa.Table, order: Order, extents: LogExtents) -> list[Task]:
        executor, memory = self._engine.open(), read_memory_limit(self.connection)
        settings = self._engine.worker_settings(memory)
        inputs: dict[tuple[str, ...], StoredObject] = {}
        tasks = []
        for view in plan.all_views:
            snapshot = self._snapshot(view, extents)
            alone = _plan_of(plan, view)
            keys = tuple(column.name for column in view.keys)
            if keys not in inputs:
                folder = f"inputs-{digest([plan.hash, order, snapshot, keys])}"
                inputs[keys] = write_table(self.state.storage, folder, _sort_by_bucket(entities, keys, plan.buckets))
            # The result of a task is in memory twice: as it was read, and in the order of the rows.
            size = entities.num_rows * 8 * (len(view.features) + 8) * 2
            for first, end in split_buckets(plan.buckets, max(executor.workers, -(-size // memory))):
                task = Task(
                    kind=READ_VIEW,
                    repo=str(self._engine.repo),
                    plan=alone.hash,
                    snapshot=snapshot,
                    first=first,
                    end=end,
                    parameters={"plan": alone.as_dict(), "order": order},
                    inputs=(inputs[keys],),
                    settings=settings,
                )
                tasks.append(task)
        return tasks

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


@dataclass(frozen=True)
class _EngineSearch:
    state: ProjectState
    plan: FeaturePlan
    entities: pa.Table
    results: Sequence[TaskResult]

    def read(self, first: int, count: int) -> dict[str, ViewRead]:
        part = self.entities.slice(first, count)
        t = shared_numbers(part[TIME].combine_chunks(), 0).astype(np.int64)
        return {view.name: _decode(view, self._rows(view, first, len(t)), t) for view in self.plan.all_views}

    def _rows(self, view: View | WindowView, first: int, count: int) -> pa.Table:
        """Return the results of a view for some entity rows, in their order."""
        parts, places = [], []
        for result in self.results:
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
    views = _open_views(task.repo, json.dumps(task.settings, sort_keys=True))
    storage, plan = views.state.storage, FeaturePlan.from_dict(task.parameters["plan"])
    (view,) = plan.all_views
    began = time.perf_counter()
    entities = read_table(storage, task.inputs[0])
    entities = _select_range(entities, _BUCKET, task.first, task.end)
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
    return views.read_columns(view, positions, _read_names(view))


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


def _read_names(view: View) -> list[str]:
    return [EVENT, CREATED, SEQ, RUN, TOMBSTONE, *(column.name for column in view.features)]


def _plan_of(plan: FeaturePlan, view: View | WindowView) -> FeaturePlan:
    """Return a plan of one view, to send it to a worker."""
    own: Mapping[str, Any] = {"windows": (view,)} if isinstance(view, WindowView) else {"views": (view,)}
    empty = FeaturePlan(project=plan.project, views=(), request=(), transforms=(), services=(), buckets=plan.buckets)
    return replace(empty, **own)


def _sort_by_bucket(entities: pa.Table, keys: Sequence[str], buckets: int) -> pa.Table:
    """Return key columns, times and row numbers, by bucket: a task reads a slice of them."""
    bucket = find_buckets([entities[key] for key in keys], buckets)
    order = np.argsort(bucket, kind="stable")
    rows = entities.select([*keys, TIME]).take(int64_array(order))
    return rows.append_column(ROW, int64_array(order)).append_column(_BUCKET, int64_array(bucket[order]))


def _select_range(table: pa.Table, column: str, first: int, end: int) -> pa.Table:
    """Return the rows with ``first <= column < end`` of a table that is sorted by an integer column."""
    # Chunk by chunk, without a copy: the table may be larger than memory.
    chunks = [shared_numbers(chunk, 0) for chunk in table[column].chunks]
    low, high = (sum(int(np.searchsorted(chunk, edge)) for chunk in chunks) for edge in (first, end))
    return table.slice(low, high - low)


def _floats(values: np.ndarray) -> pa.Array:
    data = np.ascontiguousarray(values, np.float64)
    return pa.Array.from_buffers(pa.float64(), len(data), [None, pa.py_buffer(data)])


@cache
def _open_views(repo: str, settings: str) -> OfflineViews:
    """Return the views of a project; a worker opens it once."""
    own = load_settings(Path(repo), **json.loads(settings))
    state = ProjectState.of(Path(repo), own)
    return OfflineViews(state, connect(spill_folder(state), memory_limit=own.memory_limit, threads=own.threads))
