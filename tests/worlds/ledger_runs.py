"""The runs of a ledger as a list, and the known ranges that follow from them, in slow Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from skewless.infra.log.runs import Coverage, Kind, KnownRanges
from skewless.infra.platform.storage.database import Database


class MaterializationRun(NamedTuple):
    """One run; ``ended_us`` is None while it runs, and forever if it crashed."""

    run_id: int
    started_us: int
    skew_us: int = 0
    ended_us: int | None = None
    covers: Mapping[str, Coverage] = {}


class KnownRange(NamedTuple):
    """Log positions ``first`` to ``last`` that one run was the first to apply completely."""

    first: int
    last: int
    kind: Kind
    ended_us: int


def read_runs(database: Database) -> list[MaterializationRun]:
    """Return all runs, oldest first."""
    covers: dict[int, dict[str, Coverage]] = {}
    sql = "SELECT partition, run_id, first_position, last_position, kind FROM coverage ORDER BY partition"
    for partition, run_id, first, last, kind in database.query(sql):
        covers.setdefault(run_id, {})[partition] = Coverage(first=first, last=last, kind=kind)
    rows = database.query("SELECT run_id, started_us, skew_us, ended_us FROM materializations ORDER BY run_id")
    return [
        MaterializationRun(run_id, started_us, skew_us, ended_us, covers.get(run_id, {}))
        for run_id, started_us, skew_us, ended_us in rows
    ]


def known_ranges(runs: Iterable[MaterializationRun], partition: str) -> list[KnownRange]:
    """Return disjoint, ascending ranges of one partition: each position belongs to the first run that applied it."""
    finished = [run for run in runs if run.ended_us is not None and partition in run.covers]
    ranges: list[KnownRange] = []
    last_position = -1
    # Runs exclude each other, so ids give their order. Times do not: a clock may be set back.
    for run in sorted(finished, key=lambda item: item.run_id):
        part = run.covers[partition]
        if part.last > last_position:
            first = max(part.first, last_position + 1)
            ranges.append(KnownRange(first=first, last=part.last, kind=part.kind, ended_us=run.ended_us or 0))
            last_position = part.last
    return ranges


def to_list(ranges: KnownRanges) -> list[KnownRange]:
    """Return the ranges of the product in the form of ``known_ranges``."""
    rows = zip(*(column.tolist() for column in ranges[1:]), strict=True)
    return [KnownRange(first, last, "live" if is_live else "bootstrap", end) for first, last, is_live, end in rows]
