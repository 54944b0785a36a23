"""Events of a project: ingested from streams, imported from files, and aggregated into window states."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from skewless.contract.decisions import DecisionStream
from skewless.contract.errors import StoreError
from skewless.contract.names import check_known
from skewless.contract.plan import View
from skewless.contract.windows.view import WindowView
from skewless.infra.ingest.materialization.latest_rows import BACKFILLS
from skewless.infra.ingest.streams.backfill import Backfiller, BackfillResult
from skewless.infra.ingest.streams.decider import DeciderPool
from skewless.infra.ingest.streams.importing import Importer, ImportResult
from skewless.infra.ingest.streams.port import StreamError
from skewless.infra.ingest.streams.source_counts import SourceCounts
from skewless.infra.ingest.streams.worker_group import WorkerGroup
from skewless.infra.log.catalog import log_ends
from skewless.infra.platform.host.metrics import serve_metrics
from skewless.infra.platform.host.processes import ProcessRecord
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.platform.telemetry.port import report_metrics
from skewless.infra.reads.online.store import open_online_store
from skewless.operations.audited import record_settings
from skewless.operations.data.decision_port import find_decisions, require_decisions
from skewless.workspace import Workspace

# Called with the current view or file, and the number of its rows so far.
OnRows = Callable[[str, int], None]
OnCounts = Callable[[Sequence["SourceCounts"]], None]
_CHECK_SECONDS, _IDLE_CHECK_SECONDS, _RETRY_SECONDS = 0.5, 0.05, 1.0
_log = EventLogger()


def backfill(
    project: Workspace, views: Sequence[str] = (), *, dry_run: bool = False, on_rows: OnRows | None = None
) -> list[BackfillResult]:
    """Build the online states of views from the log.

    Servers read the current states of a windowed view until the new ones are complete. The rows of a view of latest
    values are deleted first, so until they are written again, by this or by any later run, it is unavailable.

    Args:
        views: names, with ``@HASH`` for versions that only models need; empty: all windowed views.
        dry_run: build nothing; return the current generation and the number of events.

    Raises:
        RequestError: the plan has no such view.
        StoreError: the store or the disk failed; servers keep the current states of windowed views.
    """
    selected = _select_views(project, views)
    if dry_run:
        return [_describe(project, view) for view in selected]
    with closing(open_online_store(project.redis_url)) as store:
        builder = Backfiller(streams=project.streams, store=store)
        return [
            builder.build(view, on_rows or (lambda _view, _done: None))
            if isinstance(view, WindowView)
            else _write_again(project, view)
            for view in selected
        ]


def _select_views(project: Workspace, names: Sequence[str]) -> Sequence[View | WindowView]:
    needed = project.needed
    views: tuple[View | WindowView, ...] = (*needed.plan.views, *needed.plan.windows)
    by_name = {needed.label(view): view for view in views}
    by_name |= {view.name: needed.plan.window(view.name) for view in needed.plan.windows}
    for name in names:
        check_known("view", name, by_name)
    return [by_name[name] for name in names] or needed.plan.windows


def _describe(project: Workspace, view: View | WindowView) -> BackfillResult:
    generation = None
    if isinstance(view, WindowView):
        live = project.streams.generations.find_live(view)
        generation = None if live is None else live.number
        events = sum(end + 1 for end in log_ends(project.state, view.source).values())
    else:
        events = project.views.log(view).next_seq()
    return BackfillResult(view=project.needed.label(view), generation=generation, states=None, events=events)


def complete_backfills(project: Workspace) -> None:
    """Let a run write the views of latest values again of which a backfill was requested, and stopped."""
    requested = Documents(project.state.database, BACKFILLS)
    if views := [view for view in project.needed.plan.views if requested.get(view.partition) is not None]:
        project.materializer.run(views, project.checks.check_rows)


def _write_again(project: Workspace, view: View) -> BackfillResult:
    # The run deletes the rows first. If it is stopped, the next one begins again.
    Documents(project.state.database, BACKFILLS).put(view.partition, {})
    (report,) = project.materializer.run([view], project.checks.check_rows)
    return replace(_describe(project, view), states=report.written)


def import_events(
    project: Workspace, sources: Sequence[str] = (), *, dry_run: bool = False, on_rows: OnRows | None = None
) -> list[ImportResult]:
    """Append the history of event sources, from the files of their batch sources, to the log.

    Args:
        sources: names of event sources; empty: all that have such files.
        dry_run: change nothing, and return what would be imported.

    Raises:
        RequestError: the plan has no such source.
        SourceError: a named source has no history, or a file is corrupt or has changed since it was imported.
        StoreError: the disk failed.
        ConflictError: another process imports the same source.
    """
    importers = [
        Importer(streams=project.streams, source=source, repo=project.repo, dry_run=dry_run)
        for source in project.streams.sources(sources)
        if source.history is not None or sources
    ]
    return [importer.run(on_rows or (lambda _file, _done: None)) for importer in importers]


def _open_deciders(project: Workspace, decisions: Sequence[DecisionStream]) -> DeciderPool | None:
    """Return deciders; None: a worker of a project without decision streams does not load the server's code."""
    if decisions:
        return require_decisions().open_deciders(project)
    if port := find_decisions():
        port.forget_streams(project)
    return None


def stream(
    project: Workspace,
    sources: Sequence[str] = (),
    *,
    replay: Path | None = None,
    speed: float | None = None,
    until_idle: bool = False,
    metrics_port: int | None = None,
    stop: threading.Event | None = None,
    on_counts: OnCounts | None = None,
) -> list[SourceCounts]:
    """Ingest events into the log and the online store; the process can be killed at any time.

    Args:
        sources: names of event sources; empty: all.
        replay: Parquet files, a folder or a glob, read instead of the stream.
        speed: factor of real time, for a replay; None: without pauses.
        until_idle: return when the streams have no more events.
        metrics_port: for Prometheus metrics, at ``metrics_host``; None: no metrics.
        stop: return when it is set.
        on_counts: called twice a second with the counts of each source.

    Returns:
        The counts of each source; none if it was stopped while it waited for a store or the database.

    Raises:
        RequestError: the plan has no such source.
        StreamError: a broker refuses for good.
        StoreError: a store or the database is unavailable, and ``until_idle``; otherwise it waits.
    """
    record, stop = ProcessRecord(project.state, "stream"), stop or threading.Event()
    arguments: dict[str, Any] = {"names": sources, "replay": replay, "speed": speed, "process_record": record}
    group = _open_group(project, stop, is_patient=not until_idle, **arguments)
    if group is None:
        return []
    with closing(group), report_metrics(group.collect):
        with suppress(StoreError):  # the worker waits for its database
            if not until_idle:
                record_settings(project)
        if metrics_port is not None:
            serve_metrics(group, project.settings.metrics_host, metrics_port, "--metrics-port")
        group.start()
        while not stop.wait(_IDLE_CHECK_SECONDS if until_idle else _CHECK_SECONDS):
            group.check()
            if on_counts is not None:
                on_counts(group.source_counts)
            if until_idle and group.is_idle():
                break
        group.stop()
    return group.source_counts


def _open_group(
    project: Workspace,
    stop: threading.Event,
    *,
    is_patient: bool,
    **arguments: Any,  # noqa: ANN401 - of WorkerGroup
) -> WorkerGroup | None:
    """Open the workers; while a store or the database is unavailable, wait and log why. None: stopped meanwhile."""
    while not stop.is_set():
        try:
            return WorkerGroup(project.streams, open_deciders=partial(_open_deciders, project), **arguments)
        except StoreError as error:
            if not is_patient or isinstance(error, StreamError):
                raise
            _log.warning("stream_not_started", error=str(error))
            stop.wait(_RETRY_SECONDS)
    return None
