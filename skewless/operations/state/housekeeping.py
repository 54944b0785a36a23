"""Compaction of logs, and retention of runs, predictions and quarantine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from skewless.contract.plain_record import PlainRecord
from skewless.contract.plan import FeaturePlan
from skewless.infra.definitions.plans.applied_plan import read_valid
from skewless.infra.ingest.streams.backfill import Housekeeper
from skewless.infra.log.bucket_order import BucketOrder
from skewless.infra.log.catalog import LOG_FOLDERS, ORPHAN_AGE_US, ORPHAN_LOCK, Catalog
from skewless.infra.log.compaction import compact
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.readers import forget_readers
from skewless.infra.log.spool import ShippedFiles
from skewless.infra.platform.jobs.ledger import Ledger
from skewless.infra.platform.storage.objects import find_probes
from skewless.infra.platform.storage.package_folder import PackageFolder
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.store import open_online_store
from skewless.infra.records.outcomes.log import compact_outcomes
from skewless.infra.records.predictions.segments import compact_predictions, remove_predictions
from skewless.operations.data.decision_port import require_decisions
from skewless.workspace import Workspace

_DAY_US = 86_400_000_000


@dataclass(frozen=True, kw_only=True)
class HousekeepingReport(PlainRecord):
    """The counts of one housekeeping.

    Args:
        runs: runs deleted from the ledger.
        predictions: expired segments of the prediction log.
        quarantine: deleted batches of rejected rows.
        merged: small segments of all logs, merged into larger ones.
        deleted: objects of merged or expired segments that no reader uses any more, and of interrupted writers.
        retired: unused versions of views and former builds of states, whose online values were deleted.
        dry_run: nothing was changed; ``deleted`` does not have the files of segments that a run merges or removes.
    """

    runs: int
    predictions: int
    quarantine: int
    merged: int
    deleted: int
    retired: int
    dry_run: bool = False


def run_housekeeping(project: Workspace, *, dry_run: bool = False) -> HousekeepingReport:
    """Compact logs, and delete what is older than the ``keep_`` settings allow.

    The prediction log is deleted and merged by UTC day.

    Raises:
        DefinitionError: the plan has sinks, and what knows their positions is not installed.
        StoreError: the disk failed.
    """
    settings, state, now_us = project.settings, project.state, project.clock.now_us()
    runs, predictions, quarantine = (
        now_us - days * _DAY_US if days else 0
        for days in (settings.keep_runs_days, settings.keep_predictions_days, settings.keep_quarantine_days)
    )
    return HousekeepingReport(
        runs=Ledger(state).prune(runs, dry_run=dry_run),
        predictions=remove_predictions(state, predictions, keep_from=_first_undelivered(project), dry_run=dry_run),
        quarantine=_remove_files(_list_old(state / "quarantine", "*/*.parquet", quarantine), dry_run=dry_run),
        merged=compact_predictions(state, now_us, since_us=predictions, dry_run=dry_run)
        + _merge(state, project.needed.plan, dry_run=dry_run),
        deleted=_delete_unread(state, dry_run=dry_run),
        retired=_retire(project, dry_run=dry_run),
        dry_run=dry_run,
    )


def _first_undelivered(project: Workspace) -> int | None:
    """Return the first position of the prediction log that a declared sink has not confirmed; None: no sink waits."""
    applied = read_valid(project.state)
    has_sinks = applied is not None and any(stream.sinks for stream in applied.decisions)
    return require_decisions().first_undelivered(project) if has_sinks else None


def _retire(project: Workspace, *, dry_run: bool) -> int:
    streams, needed = project.streams, project.needed
    with closing(open_online_store(project.redis_url)) as store:
        housekeeper = Housekeeper(streams=streams, sources=needed.plan.sources, store=store)
        generations = sum(housekeeper.retire(view, dry_run=dry_run) for view in needed.plan.windows)
        retirement = streams.retirement(lambda: project.needed, store)
        return generations + len(retirement.list_due() if dry_run else retirement.run())


def _merge(state: ProjectState, plan: FeaturePlan, *, dry_run: bool) -> int:
    """Merge small segments of the outcome log, of events and of rows; return how many."""
    merged = compact_outcomes(state, dry_run=dry_run)
    # The first view of a source decides the order of its events.
    orders = {view.source: BucketOrder(keys=view.keys, buckets=plan.buckets) for view in reversed(plan.windows)}
    for partition in Catalog(state.database).ends("events"):
        log, order = PartitionLog(state, partition), orders.get(partition.split("/")[1])
        merged += compact(log, order=order, dry_run=dry_run).merged
    for view in plan.views:
        log, order = PartitionLog(state, view.partition), BucketOrder(keys=view.keys, buckets=plan.buckets)
        merged += compact(log, keep=0, group=lambda _: "rows", order=order, dry_run=dry_run).merged
    return merged


def _delete_unread(state: ProjectState, *, dry_run: bool) -> int:
    catalog, before_us = Catalog(state.database), int(time.time() * 1e6) - ORPHAN_AGE_US
    if not dry_run:
        forget_readers(state.database)
        ShippedFiles(state.database).prune()
    with state.database.hold_lock(ORPHAN_LOCK):
        orphans = [name for folder in LOG_FOLDERS for name in catalog.find_orphans(state.storage, folder, before_us)]
        orphans += PackageFolder.of(state).find_orphans(before_us)
        orphans += find_probes(state.storage, before_us)
        if not dry_run:
            state.storage.delete(orphans)
    leftovers = [*_list_old(state / "staging", "*", before_us), *_list_old(state / "spool", "*/*.tmp", before_us)]
    deleted = len(orphans) + _remove_files(leftovers, dry_run=dry_run)
    deleted += catalog.delete_unread(state.storage, dry_run=dry_run)
    return deleted + state.storage.delete_unknown_copies(catalog.list_digests, dry_run=dry_run)


def _list_old(folder: Path, pattern: str, before_us: int) -> list[Path]:
    """Return the files that were last written before a time, by the disk's clock."""
    return [path for path in folder.glob(pattern) if path.stat().st_mtime_ns < before_us * 1_000]


def _remove_files(paths: Sequence[Path], *, dry_run: bool) -> int:
    """Remove files; return how many."""
    for path in () if dry_run else paths:
        path.unlink(missing_ok=True)
    return len(paths)
