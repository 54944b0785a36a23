"""Feast's compute engine: `feast materialize` through the accepted log wherever a view compiles exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

import structlog
from feast import Entity
from feast.infra.common.materialization_job import (
    MaterializationJob,
    MaterializationJobStatus,
    MaterializationTask,
)
from feast.infra.common.retrieval_task import HistoricalRetrievalTask
from feast.infra.compute_engines.base import ComputeEngine
from feast.infra.compute_engines.local.compute import LocalComputeEngine
from feast.infra.compute_engines.local.job import LocalRetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel

from skewless.contract.clock import from_us, open_clock, to_us
from skewless.contract.errors import SkewlessError
from skewless.infra.feast_plugins.latest_messages import as_messages, newest_rows
from skewless.infra.feast_plugins.online_store import SkewlessOnlineStore
from skewless.infra.feast_plugins.stored_views import StoredView, Table, is_plain, stored_form
from skewless.infra.feast_plugins.windowed_views import is_windowed
from skewless.infra.log.runs import RunLedger
from skewless.infra.materialization.materialize import Materializer
from skewless.infra.materialization.run_report import RunStep
from skewless.infra.materialization.skipped_rows import tell_left_out
from skewless.infra.offline.changes import EventRange
from skewless.infra.offline.engine import connect
from skewless.infra.sources.place import repo_of, settings_of, state_of

_log = structlog.get_logger()
BATCH_ROWS = 20_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Feast asks for "until now" by the second, some time before the engine reads its clock.
_NOW_SLACK = timedelta(minutes=1)
_NO_TTL = timedelta(weeks=52)  # where Feast begins when a view without ttl was never materialised


class SkewlessComputeEngineConfig(FeastConfigBaseModel):
    """The lines under ``batch_engine``."""

    type: Literal["skewless.infra.feast_plugins.engine.SkewlessComputeEngine"] = (
        "skewless.infra.feast_plugins.engine.SkewlessComputeEngine"
    )


@dataclass(frozen=True, kw_only=True)
class SkewlessJob(MaterializationJob):
    """A materialisation that is over."""

    task: MaterializationTask
    failure: SkewlessError | None = None

    def status(self) -> MaterializationJobStatus:
        """Return how it ended."""
        return MaterializationJobStatus.ERROR if self.failure else MaterializationJobStatus.SUCCEEDED

    def error(self) -> BaseException | None:
        """Return why it failed."""
        return self.failure

    def should_be_retried(self) -> bool:
        """Say that running it again is the user's to decide; it goes on where it stopped."""
        return False

    def job_id(self) -> str:
        """Return a name for people."""
        return f"{self.task.feature_view.name}-{self.task.start_time}-{self.task.end_time}"

    def url(self) -> str | None:
        """Return None: there is no page about it."""
        return None


class SkewlessComputeEngine(ComputeEngine):
    """Fills the online store."""

    def update(
        self,
        project: str,
        views_to_delete: Sequence[Table],
        views_to_keep: Sequence[Table],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
    ) -> None:
        """Do nothing: the engine keeps no infrastructure."""

    def teardown_infra(self, project: str, fvs: Sequence[Table], entities: Sequence[Entity]) -> None:
        """Do nothing: the accepted log is history, and outlives the online store."""

    def get_historical_features(self, registry: BaseRegistry, task: HistoricalRetrievalTask) -> LocalRetrievalJob:
        """Return what Feast's own engine computes; Feast asks the offline store itself, not this."""
        return self._feasts_own().get_historical_features(registry, task)

    def _materialize_one(self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any) -> MaterializationJob:  # noqa: ANN401 - Feast's signature
        view = task.feature_view
        if isinstance(self.online_store, SkewlessOnlineStore) and is_windowed(view):
            _log.warning(
                "windowed_view_left_out",
                view=view.name,
                problem="its features are computed from events, not materialised",
                fix="`skewless stream` keeps it up to date, `skewless backfill` fills it",
            )
            return SkewlessJob(task=task)
        if not isinstance(self.online_store, SkewlessOnlineStore) or not is_plain(view) or view.offline:
            job: MaterializationJob = self._feasts_own()._materialize_one(registry, task, **kwargs)  # noqa: SLF001 - the method that a single task is
            return job
        entities = {entity.name: entity.join_key for entity in registry.list_entities(task.project)}
        stored = stored_form(view, self.repo_config, lambda: entities)
        try:
            if stored.exact:
                self._accept(self.online_store, stored, task)
            elif view.online:
                self._pull(self.online_store, registry, task)
        except SkewlessError as error:
            return SkewlessJob(task=task, failure=error)
        return SkewlessJob(task=task)

    def _accept(self, online: SkewlessOnlineStore, stored: StoredView, task: MaterializationTask) -> None:
        """Bring a view up to date from its source, through the log."""
        settings, state = settings_of(self.repo_config), state_of(self.repo_config)
        clock = open_clock(settings.clock)
        connection = connect(state / "spill", memory_limit=settings.memory_limit, threads=settings.threads)
        try:
            materializer = Materializer(
                project=self.repo_config.project,
                repo=repo_of(self.repo_config),
                state=state,
                connection=connection,
                online=lambda: online.connections(self.repo_config).writer,
                ledger=RunLedger(state / "runs"),
                clock=clock,
                strict=settings.strict,
            )
            with _Bar(task.tqdm_builder) as bar:
                events = events_of(task, from_us(clock.now_us()))
                reports = materializer.run([stored.view], events=events, naive_is_utc=True, on_step=bar.step)
        finally:
            connection.close()
        for report in reports:
            tell_left_out(report.view, report.left_out)

    def _pull(self, online: SkewlessOnlineStore, registry: BaseRegistry, task: MaterializationTask) -> None:
        """Write the newest rows of a view that only Feast's own types can carry."""
        now_us = open_clock(settings_of(self.repo_config).clock).now_us()
        start = _EPOCH if is_incremental(task, from_us(now_us)) else task.start_time
        # A row of the future would hide the one of now; it comes with the first run after its time.
        task = replace(task, end_time=from_us(min(to_us(task.end_time), now_us)))
        table = newest_rows(self.get_execution_context(registry, task), registry, task, start)
        done = 0
        with _Bar(task.tqdm_builder) as bar:
            for rows in as_messages(task.feature_view, table, BATCH_ROWS):
                online.online_write_batch(self.repo_config, task.feature_view, rows, None)
                done += len(rows)
                bar.move(done, table.num_rows)

    def _feasts_own(self) -> LocalComputeEngine:
        limits = self.repo_config.materialization_config
        size = limits.online_write_batch_size or BATCH_ROWS
        bounded = limits.model_copy(update={"online_write_batch_size": size})
        return LocalComputeEngine(
            backend="pandas",
            repo_config=self.repo_config.model_copy(update={"materialization_config": bounded}),
            offline_store=self.offline_store,
            online_store=self.online_store,
        )


def events_of(task: MaterializationTask, now: datetime) -> EventRange | None:
    """Return which event times a task is about; None: everything that was published until now.

    An incremental task means whatever the log lacks, late rows too; one with a start of its own, a backfill.
    """
    end_us = to_us(task.end_time)
    if not is_incremental(task, now):
        return EventRange(start_us=to_us(task.start_time), end_us=end_us)
    return None if end_us >= to_us(now - _NOW_SLACK) else EventRange(end_us=end_us)


def is_incremental(task: MaterializationTask, now: datetime) -> bool:
    """Say whether a task goes on from the last one, or is the first: Feast tells by nothing but its start."""
    view = task.feature_view
    last = view.most_recent_end_time
    start = to_us(task.start_time)
    if last is not None:
        return start == to_us(last)
    first = to_us(now - (view.ttl or _NO_TTL))
    return abs(first - start) <= _NOW_SLACK // timedelta(microseconds=1)


class _Bar:
    """A bar over the rows that are applied, made when their number is known.

    Args:
        build: returns a bar of a length; None: no bar is shown.
    """

    def __init__(self, build: Callable[[int], Any] | None) -> None:
        self._build = build
        self._bar: Any = None
        self._done = 0

    def __enter__(self) -> Self:
        """Return the bar; leaving the block ends it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()

    def step(self, step: RunStep) -> None:
        """Move the bar to where a run is."""
        if step.total is not None:
            self.move(step.done, step.total)

    def move(self, done: int, total: int) -> None:
        """Move the bar to so many rows."""
        if self._build is None:
            return
        if self._bar is None:
            self._bar = self._build(total)
        self._bar.update(done - self._done)
        self._done = done
