"""The ledger of materialization runs: when each began, and the log rows that it has applied.

A run without an end is running, or crashed; then a later run covers its rows (SEMANTICS 2.6, 2.7).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from skewless.infra.storage.database import Database, Row
from skewless.infra.storage.leases import Lease, Leases

Kind = Literal["live", "bootstrap"]
_BATCH_RUNS = 10_000


class Coverage(NamedTuple):
    """Log positions ``first`` to ``last`` of one partition that a run applied."""

    first: int
    last: int
    kind: Kind


class MaterializationRun(NamedTuple):
    """One materialization run; times are microseconds of the project's clock.

    Args:
        run_id: from 1.
        started_us: when it began.
        skew_us: offset of this machine's clock to the store's when the run began.
        ended_us: None while it runs, and forever if it crashed.
        covers: per partition, the positions that it applied.
    """

    run_id: int
    started_us: int
    skew_us: int = 0
    ended_us: int | None = None
    covers: Mapping[str, Coverage] = {}


class RunLedger:
    """The runs of one project, in the order of their ids.

    Runs exclude each other by a lease, which the writes check. So only the latest run can still change.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._leases = Leases(database)
        self._final: list[MaterializationRun] = []

    def start(self, now_us: int, skew_us: int = 0, lease: Lease | None = None) -> MaterializationRun:
        """Record the start of a run; it gets the next id.

        Args:
            lease: checked by this write; None: the caller excludes other runs.

        Raises:
            ConflictError: the lease was lost to another run.
            StoreError: the database is unavailable.
        """
        with self._fence(lease):
            ((run_id,),) = self._database.execute(
                "INSERT INTO materializations (run_id, started_us, skew_us) "
                "SELECT coalesce(max(run_id), 0) + 1, ?, ? FROM materializations RETURNING run_id",
                now_us,
                skew_us,
            )
        return MaterializationRun(run_id=run_id, started_us=now_us, skew_us=skew_us)

    def finish(
        self, run: MaterializationRun, covers: Mapping[str, Coverage], now_us: int, lease: Lease | None = None
    ) -> MaterializationRun:
        """Record the end of a run and the positions that it applied; see ``start`` for lease and errors."""
        with self._fence(lease):
            self._database.execute(
                "UPDATE materializations SET ended_us = ?, covers = ? WHERE run_id = ? AND ended_us IS NULL",
                now_us,
                json.dumps({name: item._asdict() for name, item in covers.items()}),
                run.run_id,
            )
        return run._replace(ended_us=now_us, covers=covers)

    def withdraw(self, run: MaterializationRun, lease: Lease | None = None) -> None:
        """Remove a run that failed before it wrote a row to log or store; see ``start`` for lease and errors."""
        with self._fence(lease):
            self._database.execute("DELETE FROM materializations WHERE run_id = ? AND ended_us IS NULL", run.run_id)

    def runs(self) -> Sequence[MaterializationRun]:
        """Return all runs, oldest first; only new ones, and one that had not ended, are read."""
        final = self._final
        runs = [*final, *self.read_from(final[-1].run_id + 1 if final else 1)]
        self._final = runs if not runs or runs[-1].ended_us is not None else runs[:-1]
        return runs

    def read_from(self, run_id: int) -> Iterator[MaterializationRun]:
        """Yield the runs from an id on, oldest first."""
        rows: list[Row] = []
        while not rows or len(rows) == _BATCH_RUNS:
            rows = self._database.query(
                "SELECT run_id, started_us, skew_us, ended_us, covers FROM materializations WHERE run_id >= ? "
                "ORDER BY run_id LIMIT ?",
                rows[-1][0] + 1 if rows else run_id,
                _BATCH_RUNS,
            )
            if not rows:
                return
            # One call for all: a project that runs each minute has 500,000 runs a year.
            covers = json.loads(f"[{','.join(row[-1] or '{}' for row in rows)}]")
            yield from map(_build_run, rows, covers)

    @contextmanager
    def _fence(self, lease: Lease | None) -> Iterator[None]:
        with self._database.transaction():
            if lease is not None:
                self._leases.check(lease)
            yield


def _build_run(row: Row, covers: Mapping[str, Mapping[str, Any]]) -> MaterializationRun:
    run_id, started_us, skew_us, ended_us, _ = row
    covered = {name: Coverage(**item) for name, item in covers.items()}
    return MaterializationRun(run_id, started_us, skew_us, ended_us, covered)


class KnownRange(NamedTuple):
    """Log positions ``first`` to ``last`` that one run was the first to apply completely."""

    first: int
    last: int
    kind: Kind
    ended_us: int


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


def last_by_partition(runs: Iterable[MaterializationRun]) -> dict[str, int]:
    """Return the last position of each partition that a finished run has applied; -1: it applied none.

    >>> from skewless.infra.log.runs import Coverage
    >>> cover = Coverage(first=0, last=4, kind="live")
    >>> first = MaterializationRun(run_id=1, started_us=0, ended_us=9, covers={"p": cover})
    >>> last_by_partition([first, MaterializationRun(run_id=2, started_us=9)])
    {'p': 4}
    """
    last_positions: dict[str, int] = {}
    for run in runs:
        if run.ended_us is not None:
            for partition, part in run.covers.items():
                last_positions[partition] = max(part.last, last_positions.get(partition, -1))
    return last_positions


def last_covered(runs: Iterable[MaterializationRun], partition: str) -> int:
    """Return the last position of a partition that a finished run has applied; -1: none."""
    return last_by_partition(runs).get(partition, -1)
