"""The data that was refused: rows and events by reason, rejected batches, and skipped rows; all reads are bounded.

Counts come from documents that the writers of the logs keep, so a log of any size costs the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from skewless.contract.plain_record import PlainRecord
from skewless.contract.render import render_value, shorten
from skewless.infra.log.bucket_order import BUCKET
from skewless.infra.log.daily_counts import DAY_US, ByDay, DailyCounts, Place, RowCounts
from skewless.infra.log.log_columns import (
    CREATED,
    DECLARED,
    ERASED,
    EVENT,
    EVENT_ID,
    INGEST,
    KNOWN_AT,
    RAW,
    REJECT,
    RUN,
    SEQ,
    SOURCE_POS,
    TOMBSTONE,
)
from skewless.infra.log.quarantine import RejectedBatch, list_rejected, read_bad_rows
from skewless.infra.log.read_progress import Progress
from skewless.infra.reads.offline.log_parts import read_rows_at
from skewless.operations.data.decision_port import SINK_COUNTS, find_decisions
from skewless.workspace import Workspace

_KINDS: Mapping[str, Literal["event source", "sink"]] = {"events": "event source", SINK_COUNTS: "sink"}
RefusedState = Literal["usual", "unusual", "unknown"]
_FEWEST, _TIMES = 5, 3.0  # rows of a day, and how many times the usual share, that count as unusual
_LEAST_DAYS, _MOST_REASONS = 2, 5
_LONGEST, _MOST_COLUMNS = 300, 40
_ADDED = {SEQ, INGEST, RUN, REJECT, RAW, EVENT, CREATED, TOMBSTONE, BUCKET, KNOWN_AT, DECLARED, EVENT_ID, SOURCE_POS}


@dataclass(frozen=True, kw_only=True)
class DayCount(PlainRecord):
    """The rows of one log on one UTC day, which begins at ``day_us``."""

    day_us: int
    accepted: int
    late: int
    rejected: int
    duplicates: int


@dataclass(frozen=True, kw_only=True)
class RefusedReason(PlainRecord):
    """The rows that one log refused for one reason.

    Args:
        today: on the current UTC day.
        rows: on all recorded days.
        last_us: the latest day with such rows.
        share: of all rows that came today; None: no row did.
        usual: share of the rows of earlier days; None: too few days are recorded.
    """

    reason: str
    today: int
    rows: int
    last_us: int
    share: float | None
    usual: float | None
    state: RefusedState


@dataclass(frozen=True, kw_only=True)
class RefusedLog(PlainRecord):
    """A view or an event source that refused rows, or a sink that refused decisions.

    Args:
        log: ``batch/VIEW-HASH``, ``events/SOURCE`` or ``sinks/SINK``.
        name: of the view, with a hash if it is not needed any more, or of the event source or sink.
        since_us: first recorded day.
        accepted, rejected: rows on all recorded days.
        days: number of recorded days with rows.
        reasons: the most frequent, at most five.
        more: number of further reasons.
        is_unusual: whether more rows than usual were refused today, for any reason.
    """

    log: str
    name: str
    kind: Literal["view", "event source", "sink"]
    since_us: int
    accepted: int
    rejected: int
    days: int
    reasons: list[RefusedReason]
    more: int
    is_unusual: bool


def days_of(project: Workspace, log: str) -> list[DayCount]:
    """Return the rows of a log by UTC day, for the last 35 days with rows, in order.

    Args:
        log: ``batch/VIEW-HASH`` or ``events/SOURCE``.
    """
    return [
        DayCount(
            day_us=day,
            accepted=counts.accepted,
            late=counts.late,
            rejected=counts.rejected,
            duplicates=counts.duplicates,
        )
        for day, counts in DailyCounts(project.state.database).read(log).items()
    ]


def list_refused(project: Workspace) -> list[RefusedLog]:
    """Return the logs that refused rows on a recorded day, by kind and name."""
    needed = project.needed
    labels = {view.partition: needed.label(view) for view in needed.plan.views}
    logs = DailyCounts(project.state.database).read_all()
    today = project.clock.now_us() // DAY_US * DAY_US
    refused = [
        _describe(log, labels.get(log, log.partition("/")[2]), days, today)
        for log, days in logs.items()
        if any(counts.rejected for counts in days.values())
    ]
    return sorted(refused, key=lambda item: (item.kind, item.name, item.log))


def _describe(log: str, name: str, days: ByDay, today: int) -> RefusedLog:
    by_reason: dict[str, dict[int, int]] = {}
    for day, counts in days.items():
        for reason, rows in counts.refused.items():
            by_reason.setdefault(reason, {})[day] = rows
    rejected = sum(sum(rows.values()) for rows in by_reason.values())
    accepted = sum(counts.accepted for counts in days.values())
    current = days.get(today, RowCounts())
    rows_today = current.accepted + current.rejected
    # A share of very few days is not usual yet.
    is_known = sum(day < today for day in days) >= _LEAST_DAYS
    earlier = accepted + rejected - rows_today if is_known else 0
    reasons = [_reason(reason, rows, today, rows_today, earlier) for reason, rows in by_reason.items()]
    reasons.sort(key=lambda item: (-item.rows, item.reason))
    return RefusedLog(
        log=log,
        name=name,
        kind=_KINDS.get(log.partition("/")[0], "view"),
        since_us=min(days),
        accepted=accepted,
        rejected=rejected,
        days=len(days),
        reasons=reasons[:_MOST_REASONS],
        more=max(0, len(reasons) - _MOST_REASONS),
        is_unusual=any(item.state == "unusual" for item in reasons),
    )


def _reason(reason: str, by_day: Mapping[int, int], today: int, rows_today: int, earlier: int) -> RefusedReason:
    """Return the counts of a reason.

    Args:
        by_day: refused rows by day.
        rows_today: all rows that came today.
        earlier: all rows of earlier days; 0: the usual share is unknown.
    """
    rows, now = sum(by_day.values()), by_day.get(today, 0)
    usual = (rows - now) / earlier if earlier else None
    share = now / rows_today if rows_today else None
    state: RefusedState = "unknown" if usual is None else "usual"
    if usual is not None and share is not None and now >= _FEWEST and share > _TIMES * usual:
        state = "unusual"
    return RefusedReason(
        reason=reason, today=now, rows=rows, last_us=max(by_day), share=share, usual=usual, state=state
    )


@dataclass(frozen=True, kw_only=True)
class RefusedRow(PlainRecord):
    """A refused row of a log.

    Args:
        partition, position: its place in the log; None: it is in no log, because its batch was rejected.
        reason: why it was refused.
        at_us: when it was refused, UTC microseconds; None: unknown.
        event_us: its event time; None: it has none, or it was not readable.
        stream_position: of its message in the stream; None: it did not come from a stream.
        values: its columns as text, at most 40, each shortened.
        message: of the stream, or the row of the source, as text, shortened; None: none was kept.
    """

    partition: str | None = None
    position: int | None = None
    reason: str
    at_us: int | None = None
    event_us: int | None = None
    stream_position: int | None = None
    values: dict[str, str]
    message: str | None = None


def sample_refused(project: Workspace, log: str, *, most: int = 10) -> list[RefusedRow]:
    """Return some of the latest refused rows of a log, by day and reason, the latest first.

    Their places were recorded with the counts, so that only these rows are searched. Erased rows are skipped.

    Args:
        log: ``batch/VIEW-HASH``, ``events/SOURCE`` or ``sinks/SINK``.
    """
    folder, _, name = log.partition("/")
    if folder == SINK_COUNTS:
        port = find_decisions()
        letters = port.list_refused(project, name, most) if port else ()
        return [
            RefusedRow(
                partition=letter.partition,
                position=letter.position,
                reason=shorten(letter.reason, 1_000),
                values={"prediction": str(letter.id)},
            )
            for letter in letters
        ]
    places = list(islice(_places(DailyCounts(project.state.database).read(log)), most))
    found: dict[Place, dict[str, Any]] = {}
    for partition in dict.fromkeys(partition for partition, _ in places):
        positions = [at for name, at in places if name == partition]
        rows = read_rows_at(project.connection, project.state, partition, positions)
        found |= {(partition, at): row for at, row in rows.items() if row.get(REJECT) not in {None, ERASED}}
    return [_row(place, found[place]) for place in places if place in found]


def _places(days: ByDay) -> Iterator[Place]:
    """Yield the recorded places of the latest days first; of each day one per reason, then the next."""
    for _, counts in sorted(days.items(), reverse=True):
        lists = [places[::-1] for _, places in sorted(counts.places.items())]
        for rank in range(max(map(len, lists), default=0)):
            yield from (places[rank] for places in lists if rank < len(places))


def _row(place: Place, row: Mapping[str, Any]) -> RefusedRow:
    raw = row.get(RAW)  # the bytes of a message, or the row of a source as text
    message = raw[:_LONGEST].decode(errors="backslashreplace") if isinstance(raw, bytes) else raw
    return RefusedRow(
        partition=place[0],
        position=place[1],
        reason=shorten(str(row[REJECT]), 1_000),
        at_us=row.get(INGEST),
        event_us=row.get(EVENT),
        stream_position=row.get(SOURCE_POS),
        values=_values(row),
        message=None if message is None else shorten(message, _LONGEST),
    )


def _values(row: Mapping[str, Any]) -> dict[str, str]:
    columns = [(name, value) for name, value in row.items() if name not in _ADDED]
    return {name: _text(value) for name, value in columns[:_MOST_COLUMNS]}


def _text(value: object) -> str:
    if value is None:
        return "null"
    return shorten(value, _LONGEST) if isinstance(value, str) else render_value(value)


@dataclass(frozen=True, kw_only=True)
class RefusedBatch(RejectedBatch):
    """A batch that a gate rejected on this machine.

    Args:
        accepted_later: whether a later run read the source of the view and accepted its rows; None: unknown.
    """

    accepted_later: bool | None


def list_batches(project: Workspace, *, most: int = 20) -> tuple[list[RefusedBatch], int]:
    """Return the batches that a gate rejected last on this machine, latest first, and the number of all of them."""
    batches, total = list_rejected(project.state, most=most)
    views = {view.name: view for view in reversed(project.needed.plan.views)}
    progress = {name: Progress.read(project.state, views[name]) for name in {item.view for item in batches} & {*views}}
    shown = []
    for item in batches:
        read = progress.get(item.view)
        is_later = None if item.view not in views else read is not None and read.upto_us > item.rejected_us
        shown.append(RefusedBatch(**vars(item), accepted_later=is_later))
    return shown, total


def sample_batch(project: Workspace, batch: RefusedBatch, *, most: int = 5) -> list[RefusedRow]:
    """Return some bad rows of a rejected batch, or its first rows if only the batch as a whole failed."""
    rows = read_bad_rows(project.state, batch.view, batch.batch, most=most)
    return [
        RefusedRow(
            reason=shorten(str(row.get(REJECT) or "a good row of a bad batch"), 1_000),
            at_us=batch.rejected_us,
            event_us=row.get(EVENT),
            values=_values(row),
        )
        for row in rows
    ]
