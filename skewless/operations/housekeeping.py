"""What keeps the state folder small: old files removed, small log files merged."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skewless.workspace import Workspace

_DAY_US = 86_400_000_000
# Less than a day, so that what one nightly run merged goes in the next.
_GRACE_S = 20 * 3_600.0


@dataclass(frozen=True, kw_only=True)
class HousekeepingReport:
    """What was done, or with a dry run would be.

    Args:
        runs: runs that left the ledger.
        predictions: files of the prediction log that were removed.
        quarantine: refused batches that were removed.
        merged: small files of event logs and of the outcome log that became part of big ones.
        merged_predictions: small files of the prediction log that became part of big ones; they stay a night longer.
        retired: versions of views that nothing reads any more, whose online states were removed.
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


def tidy(project: Workspace) -> HousekeepingReport:
    """Remove what is older than the ``keep_`` settings say, and merge small files.

    The prediction log goes by whole UTC days, which is how it is merged.

    Raises:
        StoreError: the disk refused.
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
