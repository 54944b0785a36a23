"""Windowed views: whether they have states, and whether the states are current."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from skewless.contract.errors import SkewlessError, StoreError
from skewless.contract.render import count_text
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.checkup.finding import CheckupFinding, doubt, from_error, good
from skewless.operations.readable import duration_text

if TYPE_CHECKING:
    from skewless.contract.settings import Settings
    from skewless.contract.windows.view import WindowView
    from skewless.infra.log.generations import Generation
    from skewless.infra.online.port import BlockingOnlineReader
    from skewless.infra.plans.needed_views import NeededViews

_PATIENCE_US = 60_000_000


def check_windows(state: ProjectState, settings: Settings) -> list[CheckupFinding]:
    """Return for each windowed view whether it has current states; starts no server."""
    from skewless.contract.clock import open_clock
    from skewless.infra.online.private_server import PrivateServer
    from skewless.infra.online.store import open_blocking_reader
    from skewless.infra.packages.store import PackageStore
    from skewless.infra.plans.needed_views import NeededViewsMonitor

    try:
        needed = NeededViewsMonitor(state, PackageStore.of(state, settings), settings.keep_versions).read()
    except SkewlessError:
        return []  # the check of the plan reports it
    if not needed.plan.windows:
        return []
    url = settings.redis_url or PrivateServer(state.folder).status().url
    try:
        now_us = open_clock(settings.clock).now_us()
    except SkewlessError as error:
        return [from_error("clock", error)]
    try:
        reader = None if url is None else open_blocking_reader(url)
        try:
            return [judge_window(needed, view, state, reader, now_us) for view in needed.plan.windows]
        finally:
            if reader is not None:
                reader.close()
    except StoreError as error:
        return [from_error("windows", error)]


def judge_window(
    needed: NeededViews, view: WindowView, state: ProjectState, reader: BlockingOnlineReader | None, now_us: int
) -> CheckupFinding:
    """Return the finding for one view.

    Args:
        reader: None: no server runs, so positions are not checked.
    """
    from skewless.infra.log.generations import Generations

    name = f"window {needed.label(view)}"
    live = Generations(state).find_live(view)
    if live is None:
        return doubt(
            name, "has no states: predictions read UNAVAILABLE", f"run `skewless stream` or `backfill {view.name}`"
        )
    if reader is None:
        return good(name, f"generation {live.number}; the online store does not run")
    behind = list(_behind(needed.plan.project, view, live, state, reader, now_us))
    if behind:
        return doubt(
            name,
            f"generation {live.number}: {'; '.join(behind)}",
            "check the stream worker, or run `skewless stream` to catch up",
        )
    return good(name, f"generation {live.number} is current with {len(live.partitions)} log partitions")


def _behind(
    project: str, view: WindowView, live: Generation, state: ProjectState, reader: BlockingOnlineReader, now_us: int
) -> Iterator[str]:
    """Yield the partitions that are more than a minute behind."""
    from skewless.contract.keys import window_marker
    from skewless.infra.log.log_columns import INGEST
    from skewless.infra.log.partition_log import PartitionLog
    from skewless.infra.log.partitions import log_partitions

    for partition in log_partitions(state, view.source):
        log = PartitionLog(state, partition)
        end = log.next_seq() - 1
        mark = reader.get_with_markers([], [window_marker(project, view, live.number, partition)])[1][0]
        if end < 0 or (mark is not None and mark.position >= end):
            continue
        if mark is None:
            yield f"the online store has no rows of {partition}"
            continue
        following = mark.position + 1
        for rows in log.read(following, following, [INGEST]):
            waited = now_us - rows[INGEST][0].as_py()
            if waited > _PATIENCE_US:
                n, age = end + 1 - following, duration_text(waited / 1e6)
                yield f"{count_text(n, 'row')} of {partition} not applied, the first for {age}"
