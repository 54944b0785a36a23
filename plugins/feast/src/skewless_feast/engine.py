"""The compute engine for Feast: `feast materialize` goes through the accepted log if a view compiles exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

import pyarrow as pa
from feast import Entity
from feast.infra.common.materialization_job import (
    MaterializationJob,
    MaterializationJobStatus,
    MaterializationTask,
)
from feast.infra.common.retrieval_task import HistoricalRetrievalTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalMaterializationJob, LocalRetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel

from skewless.contract.clock import from_us, open_clock, to_us
from skewless.contract.errors import SkewlessError
from skewless.infra.definitions.sources.source_schema import repo_of, settings_of, state_of
from skewless.infra.ingest.materialization.materialize import Materializer
from skewless.infra.ingest.materialization.run_report import RunStep
from skewless.infra.ingest.materialization.skipped_rows import warn_skipped
from skewless.infra.log.runs import RunLedger
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.offline.changes import EventRange
from skewless.infra.reads.offline.engine import connect
from skewless_feast.online_store import SkewlessOnlineStore
from skewless_feast.rows import get_batch_source, to_messages
from skewless_feast.stored_views import (
    DUMMY_KEY,
    StoredView,
    Table,
    build_stored_view,
    is_plain,
    is_windowed,
)

_log = EventLogger()
BATCH_ROWS = 20_000
# Feast passes the current time in seconds, and the engine reads its clock a little later.
_NOW_SLACK = timedelta(minutes=1)
_NO_TTL = timedelta(weeks=52)  # Feast's default start for a view without ttl that was never materialized


class SkewlessComputeEngineConfig(FeastConfigBaseModel):
    """The configuration under ``batch_engine``."""

    type: Literal["skewless_feast.engine.SkewlessComputeEngine"] = "skewless_feast.engine.SkewlessComputeEngine"


class SkewlessComputeEngine(ComputeEngine):
    """Materializes views to the online store."""

    def update(
        self,
        project: str,
        views_to_delete: Sequence[Table],
        views_to_keep: Sequence[Table],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
    ) -> None:
        """Do nothing: the engine has no infrastructure."""

    def teardown_infra(self, project: str, fvs: Sequence[Table], entities: Sequence[Entity]) -> None:
        """Do nothing: the accepted log must outlive the online store."""

    def get_historical_features(self, registry: BaseRegistry, task: HistoricalRetrievalTask) -> LocalRetrievalJob:
        """Return the result of Feast's local engine; Feast usually calls the offline store instead."""
        return self._local_engine().get_historical_features(registry, task)

    def _materialize_one(self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any) -> MaterializationJob:  # noqa: ANN401 - Feast's signature
        view = task.feature_view
        if isinstance(self.online_store, SkewlessOnlineStore) and is_windowed(view):
            _log.warning(
                "windowed_view_skipped",
                view=view.name,
                problem="its features are computed from events, not materialized",
                fix="`skewless stream` keeps it up to date, `skewless backfill` builds its states",
            )
            return _finished_job(task)
        # Feast's engine handles other stores, and views that are computed or also written offline.
        if not isinstance(self.online_store, SkewlessOnlineStore) or not is_plain(view) or view.offline:
            return self._materialize_locally(registry, task, **kwargs)
        entities = {entity.name: entity.join_key for entity in registry.list_entities(task.project)}
        stored = build_stored_view(view, self.repo_config, lambda: entities)
        try:
            # A view that `skewless apply` cannot compile has no log: its rows are Feast's messages.
            if stored.exact:
                self._materialize_log(self.online_store, stored, task)
            elif view.enable_validation:
                return self._materialize_locally(registry, task, **kwargs)
            elif view.online:
                self._materialize_messages(self.online_store, task)
        except SkewlessError as error:
            return _finished_job(task, error)
        return _finished_job(task)

    def _materialize_log(self, online: SkewlessOnlineStore, stored: StoredView, task: MaterializationTask) -> None:
        """Materialize a view through the accepted log; many rows are written on the engine of the settings."""
        from skewless.infra.ingest.materialization.latest_tasks import EngineWriter  # noqa: PLC0415 - as above
        from skewless.infra.reads.engines.engine import hold_engine  # noqa: PLC0415 - loads windows

        settings, state, repo = settings_of(self.repo_config), state_of(self.repo_config), repo_of(self.repo_config)
        clock, connections = open_clock(settings.clock), online.connections(self.repo_config)
        connection = connect(state / "spill", memory_limit=settings.memory_limit, threads=settings.threads)
        with closing(connection), hold_engine(repo, state, settings) as engine:
            materializer = Materializer(
                project=self.repo_config.project,
                repo=repo,
                state=state,
                connection=connection,
                online=lambda: connections.writer,
                ledger=RunLedger(state.database),
                clock=clock,
                strict=settings.strict,
                write=EngineWriter(engine=engine, redis_url=lambda: connections.address).write,
            )
            with _open_progress_bar(task.tqdm_builder) as move_bar:
                events = build_event_range(task, from_us(clock.now_us()))

                def show(step: RunStep) -> None:
                    if step.total is not None:
                        move_bar(step.done, step.total)

                reports = materializer.run([stored.view], events=events, naive_is_utc=True, on_step=show)
        for report in reports:
            warn_skipped(report.view, report.left_out)

    def _materialize_locally(
        self,
        registry: BaseRegistry,
        task: MaterializationTask,
        **kwargs: Any,  # noqa: ANN401 - passed on unchanged
    ) -> MaterializationJob:
        job: MaterializationJob
        (job,) = self._local_engine().materialize(registry, task, **kwargs)
        return job

    def _materialize_messages(self, online: SkewlessOnlineStore, task: MaterializationTask) -> None:
        """Write the latest rows of a view with types that only Feast's messages support."""
        now_us = open_clock(settings_of(self.repo_config).clock).now_us()
        start = from_us(0) if is_incremental(task, from_us(now_us)) else task.start_time
        # A future row would hide the current row; the first run after its time writes it.
        task = replace(task, end_time=from_us(min(to_us(task.end_time), now_us)))
        table = self._read_latest_rows(task, start)
        done = 0
        with _open_progress_bar(task.tqdm_builder) as move_bar:
            for rows in to_messages(task.feature_view, table, BATCH_ROWS):
                online.online_write_batch(self.repo_config, task.feature_view, rows, None)
                done += len(rows)
                move_bar(done, table.num_rows)

    def _read_latest_rows(self, task: MaterializationTask, start: datetime) -> pa.Table:
        """Return the latest row of each entity from ``start`` to the end of a task, with the view's column names."""
        view = task.feature_view
        source = get_batch_source(view)
        renamed = source.field_mapping or {}
        columns = {name: column for column, name in renamed.items()}
        event, created = source.timestamp_field, source.created_timestamp_column
        keys = [column.name for column in view.entity_columns if column.name != DUMMY_KEY]
        features = [field.name for field in view.features if field.name not in keys]
        job = self.offline_store.pull_latest_from_table_or_query(
            config=self.repo_config,
            data_source=source,
            join_key_columns=[columns.get(name, name) for name in keys],
            feature_name_columns=[columns.get(name, name) for name in features],
            timestamp_field=columns.get(event, event),
            created_timestamp_column=columns.get(created, created),
            start_date=start,
            end_date=task.end_time,
        )
        table = job.to_arrow()
        return table.rename_columns([renamed.get(name, name) for name in table.column_names])

    def _local_engine(self) -> LocalComputeEngine:
        limits = self.repo_config.materialization_config
        # Without a size, Feast converts the complete table to messages before it writes the first row.
        size = limits.online_write_batch_size or BATCH_ROWS
        bounded = limits.model_copy(update={"online_write_batch_size": size})
        return LocalComputeEngine(
            backend="pandas",
            repo_config=self.repo_config.model_copy(update={"materialization_config": bounded}),
            offline_store=self.offline_store,
            online_store=self.online_store,
        )


def _finished_job(task: MaterializationTask, error: SkewlessError | None = None) -> MaterializationJob:
    status = MaterializationJobStatus.ERROR if error else MaterializationJobStatus.SUCCEEDED
    return LocalMaterializationJob(f"{task.feature_view.name}-{task.start_time}-{task.end_time}", status, error)


def build_event_range(task: MaterializationTask, now: datetime) -> EventRange | None:
    """Return the range of event times of a task; None: all rows that are due.

    An incremental task covers all rows that are not in the log, also late rows; any other task is a backfill.
    """
    end_us = to_us(task.end_time)
    if not is_incremental(task, now):
        return EventRange(start_us=to_us(task.start_time), end_us=end_us)
    return None if end_us >= to_us(now - _NOW_SLACK) else EventRange(end_us=end_us)


def is_incremental(task: MaterializationTask, now: datetime) -> bool:
    """Say whether a task continues the last task, or is the first: only its start time shows this."""
    view = task.feature_view
    last = view.most_recent_end_time
    start = to_us(task.start_time)
    if last is not None:
        return start == to_us(last)
    first = to_us(now - (view.ttl or _NO_TTL))
    return abs(first - start) <= _NOW_SLACK // timedelta(microseconds=1)


@contextmanager
def _open_progress_bar(build: Callable[[int], Any] | None) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that moves a progress bar to a number of rows of a total.

    Args:
        build: creates a bar of a length, at the first call; None: no bar.
    """
    bar: Any = None
    last = 0

    def move(done: int, total: int) -> None:
        nonlocal bar, last
        if build is not None:
            bar = build(total) if bar is None else bar
            bar.update(done - last)
            last = done

    try:
        yield move
    finally:
        if bar is not None:
            bar.close()
