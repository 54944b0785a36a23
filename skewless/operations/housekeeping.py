"""Compaction of logs, and retention of runs, predictions and quarantine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skewless.workspace import Workspace

_DAY_US = 86_400_000_000
# Less than a day: the next nightly run deletes the files that one nightly run has merged.
_GRACE_S = 20 * 3_600.0


@dataclass(frozen=True, kw_only=True)
class HousekeepingReport:
    """The counts of one housekeeping.

    Args:
        runs: runs deleted from the ledger.
        predictions: deleted files of the prediction log.
        quarantine: deleted batches of rejected rows.
        merged: small files of event logs and of the outcome log, merged into larger files.
        merged_predictions: small files of the prediction log, merged into larger files; they are deleted a day later.
        retired: unused versions of views, whose online states were deleted.
    """

    runs: int
    predictions: int
    quarantine: int
    merged: int
    merged_predictions: int
    retired: int

    def as_dict(self) -> dict[str, int]:
        """Return plain values."""
        return asdict(self)


def run_housekeeping(project: Workspace) -> HousekeepingReport:
    """Compact logs, and delete what is older than the ``keep_`` settings allow.

    The prediction log is deleted and merged by UTC day.

    Raises:
        StoreError: the disk failed.
    """
    from skewless.infra.jobs.ledger import Ledger
    from skewless.infra.log.retention import remove_named_before, remove_written_before
    from skewless.infra.outcomes.compaction import compact
    from skewless.infra.predictions.compaction import compact as compact_predictions
    from skewless.infra.predictions.files import FOLDER

    settings, state, now_us = project.settings, project.state, project.clock.now_us()
    runs, predictions, quarantine = (
        now_us - days * _DAY_US if days else 0
        for days in (settings.keep_runs_days, settings.keep_predictions_days, settings.keep_quarantine_days)
    )
    return HousekeepingReport(
        runs=Ledger(state).prune(runs),
        predictions=remove_named_before(state / FOLDER, predictions // _DAY_US * _DAY_US),
        quarantine=remove_written_before(state / "quarantine", quarantine),
        merged=compact(state) + _merge_events(project),
        merged_predictions=compact_predictions(state, now_us=now_us, grace_s=max(settings.job_seconds, _GRACE_S)),
        retired=_retire(project),
    )


def _retire(project: Workspace) -> int:
    from contextlib import closing

    from skewless.infra.online.store import open_online_store

    with closing(open_online_store(project.redis_url)) as store:
        return len(project.streams.retirement(project.needed, store).run())


def _merge_events(project: Workspace) -> int:
    from skewless.infra.log.event_log import EventLog
    from skewless.infra.log.partitions import log_partitions

    root, merged = project.state / "log", 0
    for source in sorted({view.source for view in project.needed.plan.windows}):
        for name in log_partitions(root, source):
            log = EventLog(root, name)
            merged += log.compact().merged
            log.sweep()
    return merged
