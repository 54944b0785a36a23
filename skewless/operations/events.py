"""Events of a project: taken from their streams, imported from files, and built into online states."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.contract.names import check_known

if TYPE_CHECKING:
    from skewless.contract.windows.view import WindowView
    from skewless.infra.streams.backfill import BackfillResult
    from skewless.infra.streams.importing import ImportResult
    from skewless.infra.streams.source_counts import SourceCounts
    from skewless.workspace import Workspace

# Told what is worked on, and how many rows of it are done.
OnRows = Callable[[str, int], None]
OnTallies = Callable[[Sequence["SourceCounts"]], None]
_CHECKED_EVERY_S, _IDLE_CHECKED_EVERY_S = 0.5, 0.05


def bootstrap(
    project: Workspace, names: Sequence[str] = (), *, dry_run: bool = False, on_rows: OnRows | None = None
) -> list[BackfillResult]:
    """Build the online states of windowed views from the log, beside those that are read, and switch to them.

    Args:
        names: of views, with ``@HASH`` those that only models need; none: all.
        dry_run: build nothing; return the generation that is read now, and how many events there are.

    Raises:
        RequestError: there is no such view.
        StoreError: the store or the disk refused; what is read stays what it was.
    """
    from skewless.infra.log.partitions import log_ends
    from skewless.infra.online.store import open_online_store
    from skewless.infra.streams.backfill import BackfillResult

    views = _windowed(project, names)
    if not dry_run:
        with closing(open_online_store(project.redis_url)) as store:
            builder = project.streams.backfiller(store)
            return [builder.build(view, on_rows or (lambda _view, _done: None)) for view in views]
    planned = []
    for view in views:
        live = project.streams.generations.find_live(view)
        events = sum(end + 1 for end in log_ends(project.state / "log", view.source).values())
        generation = None if live is None else live.number
        planned.append(
            BackfillResult(view=project.needed.label(view), generation=generation, states=None, events=events)
        )
    return planned


def _windowed(project: Workspace, names: Sequence[str]) -> list[WindowView]:
    needed = project.needed
    known = {needed.label(view): view for view in needed.plan.windows} | {
        view.name: needed.plan.window(view.name) for view in needed.plan.windows
    }
    for name in names:
        check_known("windowed view", name, known)
    return [known[name] for name in names] or list(needed.plan.windows)


def import_events(
    project: Workspace, names: Sequence[str] = (), *, dry_run: bool = False, on_rows: OnRows | None = None
) -> list[ImportResult]:
    """Append events from before the stream, from the files of each source's batch source, to the log.

    Args:
        names: of event sources; none: all that have such files.
        dry_run: change nothing, and say what would be done.

    Raises:
        RequestError: there is no such source.
        SourceError: a named source has no history, or a file is broken or has changed since it was imported.
        StoreError: the disk refused.
        ConflictError: another process imports the same source.
    """
    sources = [source for source in project.streams.sources(names) if source.history is not None or names]
    importers = [project.streams.importer(source, project.repo, dry_run=dry_run) for source in sources]
    return [importer.run(on_rows or (lambda _file, _done: None)) for importer in importers]


def stream(
    project: Workspace,
    names: Sequence[str] = (),
    *,
    replay: Path | None = None,
    speed: float | None = None,
    until_idle: bool = False,
    metrics_port: int | None = None,
    stop: threading.Event | None = None,
    on_counts: OnTallies | None = None,
) -> list[SourceCounts]:
    """Take events from their streams to log and online states; it may be killed at any time.

    Args:
        names: of event sources; none: all.
        replay: Parquet files, a folder or a glob, read as if they were the stream.
        speed: of a replay, in times of real time; None: as fast as can be.
        until_idle: return when nothing is left to be taken.
        metrics_port: serve Prometheus metrics there, on loopback; None: nowhere.
        stop: return when it is set.
        on_counts: told twice a second what each source has done.

    Raises:
        RequestError: there is no such source.
        StoreError: the store is away.
    """
    from skewless.infra.host.metrics import serve_metrics
    from skewless.infra.host.processes import ProcessRecord
    from skewless.infra.streams.metrics import SourceMetrics
    from skewless.infra.streams.worker_group import WorkerGroup

    process_record, stop = ProcessRecord(project.state, "stream"), stop or threading.Event()
    worker_group = WorkerGroup(project.streams, names=names, replay=replay, speed=speed, process_record=process_record)
    with closing(worker_group):
        if metrics_port is not None:
            serve_metrics(SourceMetrics(lambda: worker_group.source_counts), metrics_port, "--metrics-port")
        worker_group.start()
        while not stop.wait(_IDLE_CHECKED_EVERY_S if until_idle else _CHECKED_EVERY_S):
            worker_group.check()
            if on_counts is not None:
                on_counts(worker_group.source_counts)
            if until_idle and worker_group.is_idle():
                break
        worker_group.stop()
    return worker_group.source_counts
