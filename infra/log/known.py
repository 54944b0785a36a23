"""When serving could have known each log row (SEMANTICS 2.6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from skewless.infra.log.accepted import CREATED, EVENT
from skewless.infra.log.runs import Kind, MaterializationRun


@dataclass(frozen=True, kw_only=True)
class KnownRange:
    """Log positions ``first`` to ``last`` that one run was the first to finish with."""

    first: int
    last: int
    kind: Kind
    ended_us: int


def due_sql(delay_us: int) -> str:
    """Return SQL for when a log row is due, int64 microseconds; null for a row without a time.

    That is when it was written, and not before it happens: a forecast waits for its event time. Without a created
    time it is the event time plus the declared delay.
    """
    return f"greatest({EVENT}, coalesce({CREATED}, {EVENT} + {delay_us}))"


def known_ranges(runs: Iterable[MaterializationRun], partition: str) -> list[KnownRange]:
    """Return disjoint, growing ranges of one partition: each position belongs to the first run that ended with it."""
    finished = [run for run in runs if run.ended_us is not None and partition in run.covers]
    ranges: list[KnownRange] = []
    covered = -1
    # Runs exclude each other, so their ids tell the order; their clock may have been set back.
    for run in sorted(finished, key=lambda item: item.run_id):
        part = run.covers[partition]
        if part.last > covered:
            first = max(part.first, covered + 1)
            ranges.append(KnownRange(first=first, last=part.last, kind=part.kind, ended_us=run.ended_us or 0))
            covered = part.last
    return ranges


def last_by_partition(runs: Iterable[MaterializationRun]) -> dict[str, int]:
    """Return the last position of each partition that a finished run had applied; -1: it applied none.

    >>> from skewless.infra.log.runs import Coverage
    >>> cover = Coverage(first=0, last=4, kind="live")
    >>> first = MaterializationRun(run_id=1, started_us=0, ended_us=9, covers={"p": cover})
    >>> last_by_partition([first, MaterializationRun(run_id=2, started_us=9)])
    {'p': 4}
    """
    found: dict[str, int] = {}
    for run in runs:
        if run.ended_us is not None:
            for partition, part in run.covers.items():
                found[partition] = max(part.last, found.get(partition, -1))
    return found


def last_covered(runs: Iterable[MaterializationRun], partition: str) -> int:
    """Return the last position of a partition that a finished run had applied; -1: none."""
    return last_by_partition(runs).get(partition, -1)
