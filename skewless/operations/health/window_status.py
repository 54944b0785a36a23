"""The state of windowed views and event sources; starts nothing, changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from skewless.contract.errors import StoreError
from skewless.contract.keys import window_marker
from skewless.contract.plain_record import JSON_ONLY
from skewless.contract.windows.view import EventSource, WindowView
from skewless.infra.definitions.plans.needed_views import NeededViews
from skewless.infra.log.catalog import log_ends
from skewless.infra.log.generations import Generations
from skewless.infra.log.log_columns import count_rejected
from skewless.infra.models.verdicts.last_verdicts import LastParity, read_last
from skewless.infra.reads.offline.log_parts import Delays, measure_event_delays, read_log_partitions
from skewless.infra.reads.online.port import OnlineWriter
from skewless.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class WindowStatus:
    """A windowed view in the log and in the online store.

    Args:
        needed_by: the plan, or versions of models.
        generation: of its window states; None: they do not exist.
        partitions: of its source: ``partition``, ``log_rows``, ``online_seq`` and ``lag``, in rows.
        lag: rows of the log that the states lack; None: unknown.
        parity_mismatches: of the last parity run; None: there is none.
    """

    view: str
    hash: str = field(metadata=JSON_ONLY)
    needed_by: list[str] = field(metadata=JSON_ONLY)
    source: str
    generation: int | None
    partitions: list[dict[str, Any]] = field(metadata=JSON_ONLY)
    log_rows: int
    lag: int | None
    online_current: bool | None
    parity_mismatches: int | None


@dataclass(frozen=True, kw_only=True)
class SourceStatus:
    """The log of an event source, and the delays of its events; unknown if one of its files has a problem."""

    source: str
    kind: str
    partitions: int
    log_rows: int
    rejected: int | None
    late_share: float | None
    delay_p50_s: float | None
    delay_p99_s: float | None
    views: list[str] = field(metadata=JSON_ONLY)
    problem: str | None = field(default=None, metadata=JSON_ONLY)


def windowed_views(project: Workspace, needed: NeededViews, store: OnlineWriter | None) -> list[WindowStatus]:
    """Return the state of each windowed view.

    Args:
        store: None: it is unavailable, so positions are unknown.
    """
    return [read_window(project, needed, view, store) for view in needed.plan.windows]


def event_sources(project: Workspace, needed: NeededViews) -> list[SourceStatus]:
    """Return the log of each event source, and the delays of its events."""
    return [_source(project, needed, source) for source in needed.plan.sources]


def read_window(project: Workspace, needed: NeededViews, view: WindowView, store: OnlineWriter | None) -> WindowStatus:
    """Return the state of one windowed view, as ``windowed_views``."""
    live = Generations(project.state).find_live(view)
    ends = log_ends(project.state, view.source)
    name = needed.plan.project
    parts: list[dict[str, Any]] = []
    for partition, end in ends.items():
        marker = None if live is None else window_marker(name, view, live.number, partition)
        seq, is_known = _position(store, marker)
        lag = (end - seq if seq is not None else end + 1) if is_known else None
        parts.append({"partition": partition, "log_rows": end + 1, "online_seq": seq, "lag": lag})
    lags: list[Any] = [part["lag"] for part in parts]
    total_lag = None if store is None or None in lags else sum(lags)
    verdicts = {verdict.hash: verdict for verdict in read_last(project.state, LastParity).values()}
    verdict = verdicts.get(view.hash)
    return WindowStatus(
        view=needed.label(view),
        hash=view.hash,
        needed_by=list(needed.readers[view.hash]),
        source=view.source,
        generation=None if live is None else live.number,
        partitions=parts,
        log_rows=sum(part["log_rows"] for part in parts),
        lag=total_lag,
        online_current=None if total_lag is None else (live is not None and total_lag == 0),
        parity_mismatches=verdict.mismatches if verdict else None,
    )


def _position(store: OnlineWriter | None, marker: str | None) -> tuple[int | None, bool]:
    """Return the position of a partition's marker (None: no marker), and whether it is known."""
    if marker is None:
        return None, True
    try:
        return (None, False) if store is None else (store.marker(marker), True)
    except StoreError:
        return None, False  # it became unavailable after it was opened


def _source(project: Workspace, needed: NeededViews, source: EventSource) -> SourceStatus:
    rejected, delays, problem = None, Delays(events=0, late=None, p50_s=None, p99_s=None), None
    try:
        parts = read_log_partitions(project.state, source.name)
        rejected = sum(count_rejected(part.files) for part in parts)
        delays = measure_event_delays(project.connection, parts)
    except StoreError as error:
        problem = error.sentence()
    ends = log_ends(project.state, source.name)
    return SourceStatus(
        source=source.name,
        kind=source.kind,
        partitions=len(ends),
        log_rows=sum(end + 1 for end in ends.values()),
        rejected=rejected,
        late_share=delays.late,
        delay_p50_s=delays.p50_s,
        delay_p99_s=delays.p99_s,
        views=[needed.label(view) for view in needed.plan.windows if view.source == source.name],
        problem=problem,
    )
