"""The ledger of materialization runs: when each began, and the log rows that it has applied.

A run without an end is running, or crashed; then a later run covers its rows (SEMANTICS 2.6, 2.7).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple, Self

import numpy as np

from skewless.contract.errors import StoreError
from skewless.contract.status import BoolArray, Int64Array
from skewless.infra.platform.storage.database import Database, Value
from skewless.infra.platform.storage.leases import Lease, Leases
from skewless.infra.platform.storage.schema import COVERAGE_SUM, RUN_SUM


class KnownRanges(NamedTuple):
    """Disjoint, ascending ranges of log positions of one partition, each with the first run that applied it.

    Args:
        run_id: ascending, shape ``(n,)`` as all columns.
        first, last: the positions, both included.
        is_live: whether the rows arrived live: False for a first load and a backfill.
        ended_us: end of the run, microseconds.
    """

    run_id: Int64Array
    first: Int64Array
    last: Int64Array
    is_live: BoolArray
    ended_us: Int64Array

    @classmethod
    def build(cls, covered: Int64Array, after: int = -1) -> Self:
        """Return the ranges of covered positions.

        Args:
            covered: rows of ``run_id``, ``first``, ``last``, ``is_live`` (0 or 1) and ``ended_us``, in the order of
                the runs, shape ``(5, n)``.
            after: earlier runs have applied the positions up to this one.

        >>> KnownRanges.build(np.array([(1, 0, 3, 0, 50), (2, 0, 3, 1, 60), (3, 0, 6, 1, 70)]).T).first.tolist()
        [0, 4]
        """
        run_id, first, last, is_live, ended_us = covered
        # Runs exclude each other, so ids give their order. Times do not: a clock may be set back.
        before = np.maximum.accumulate(np.concatenate([[after], last]))[:-1]
        ranges = cls(run_id, np.maximum(first, before + 1), last, is_live == 1, ended_us)
        return ranges.select(last > before)

    @property
    def end(self) -> int:
        """The last position; -1: there are no ranges."""
        return int(self.last[-1]) if len(self.last) else -1

    def select(self, mask: BoolArray) -> Self:
        """Return the ranges for which a mask is true."""
        return type(self)._make(column[mask] for column in self)

    def extend(self, covered: Int64Array) -> Self:
        """Return these ranges and those of later runs; see ``build``."""
        later = self.build(covered, self.end)
        return type(self)._make(map(np.concatenate, zip(self, later, strict=True))) if len(later.last) else self


class RunTimes(NamedTuple):
    """The times of runs, microseconds, in the order of their ids.

    Args:
        run_id: ascending, shape ``(n,)`` as all columns.
        started_us: when each run began.
        skew_us: offset of its machine's clock to the store's.
        has_ended: False: it is running, or crashed.
        ended_us: when it ended; 0 if it has not.
    """

    run_id: Int64Array
    started_us: Int64Array
    skew_us: Int64Array
    has_ended: BoolArray
    ended_us: Int64Array

    @classmethod
    def build(cls, columns: Int64Array) -> Self:
        """Return the times in rows of run id, start, skew, whether it has ended (0 or 1) and end, shape ``(5, n)``."""
        run_id, started_us, skew_us, has_ended, ended_us = columns
        return cls(run_id, started_us, skew_us, has_ended == 1, ended_us)

    def head(self, n: int) -> Self:
        """Return the first runs."""
        return type(self)._make(column[:n] for column in self)

    def extend(self, later: Int64Array) -> Self:
        """Return these runs and later ones; see ``build``."""
        return type(self)._make(map(np.concatenate, zip(self, self.build(later), strict=True))) if later.size else self


def read_integers(database: Database, columns: Sequence[str], source: str, *values: Value) -> Int64Array:
    """Return integer columns of a table, shape ``(columns, n)``, in the order of the first column.

    The database joins each to one text, and numpy parses it: many times as fast as a tuple for each row.

    Args:
        columns: in SQL, without nulls.
        source: SQL after FROM, with ``?`` for the values.

    Raises:
        StoreError: the database is unavailable.
    """
    # All in one scan, so the rows have one order.
    texts = ", ".join(f"{database.concatenate}(CAST({column} AS TEXT), ',')" for column in columns)
    rows = database.query(f"SELECT {texts} FROM {source}", *values) or [("",) * len(columns)]
    found = np.stack([np.fromstring(text or "", np.int64, sep=",") for text in rows[0]])
    is_sorted = (found[0, 1:] >= found[0, :-1]).all()
    return found if is_sorted else found[:, np.argsort(found[0], kind="stable")]


Kind = Literal["live", "bootstrap"]
# A loose scan of the primary key: it costs a step per partition, not per run.
_LAST_POSITIONS = """
WITH RECURSIVE names (name) AS (
    SELECT min(partition) FROM coverage
    UNION ALL
    SELECT (SELECT min(partition) FROM coverage WHERE partition > names.name) FROM names WHERE names.name IS NOT NULL
)
SELECT name, (SELECT max(last_position) FROM coverage WHERE partition = names.name) FROM names WHERE name IS NOT NULL"""
_COVERAGE = (*COVERAGE_SUM.columns, COVERAGE_SUM.is_intact)
_HAS_ENDED = "CASE WHEN ended_us IS NULL THEN 0 ELSE 1 END"
_TIMES = ("run_id", "started_us", "skew_us", _HAS_ENDED, "coalesce(ended_us, 0)", RUN_SUM.is_intact)
# Ids of runs whose number of covered partitions is not that of their rows: some are missing, or the run itself is.
_INCOMPLETE = """
SELECT run_id FROM (
    SELECT run_id, -covered AS n FROM materializations UNION ALL SELECT run_id, 1 FROM coverage
) AS counted GROUP BY run_id HAVING sum(n) <> 0 ORDER BY run_id LIMIT 1"""
_NO_ROWS = np.empty((5, 0), np.int64)
_NO_RANGES = KnownRanges.build(_NO_ROWS)


class Coverage(NamedTuple):
    """Log positions ``first`` to ``last`` of one partition that a run applied."""

    first: int
    last: int
    kind: Kind


class RunLedger:
    """The runs of one project, in the order of their ids.

    Runs exclude each other by a lease, which the writes check. So only the latest run can still change. All reads use
    an index: a project that runs each minute has 500,000 runs a year. ``known_ranges`` and ``times`` grow with the
    runs. They are cached, and a later call reads only new runs.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._leases = Leases(database)
        self._known: dict[str, KnownRanges] = {}
        self._final = RunTimes.build(_NO_ROWS)

    def start(self, now_us: int, skew_us: int = 0, lease: Lease | None = None) -> int:
        """Record the start of a run; return its id, the next one, from 1.

        Args:
            skew_us: offset of this machine's clock to the store's.
            lease: checked by this write; None: the caller excludes other runs.

        Raises:
            ConflictError: the lease was lost to another run.
            StoreError: the database is unavailable.
        """
        with self._fence(lease):
            run_id = self.last_run() + 1
            self._insert(run_id, now_us, skew_us)
        return run_id

    def finish(self, run_id: int, covers: Mapping[str, Coverage], now_us: int, lease: Lease | None = None) -> None:
        """Record the end of a run and, per partition, the positions that it applied; see ``start`` for the rest."""
        with self._fence(lease):
            end = now_us, len(covers)
            checksum = RUN_SUM.changed({"ended_us": "?", "covered": "?"})
            rows = self._database.execute(
                f"UPDATE materializations SET ended_us = ?, covered = ?, checksum = {checksum} "
                "WHERE run_id = ? AND ended_us IS NULL RETURNING run_id",
                *end,
                *end,
                run_id,
            )
            for partition, part in covers.items() if rows else ():
                self._cover(run_id, partition, part, now_us)

    def withdraw(self, run_id: int, lease: Lease | None = None) -> None:
        """Remove a run that failed before it wrote a row to log or store; see ``start`` for lease and errors."""
        with self._fence(lease):
            self._database.execute("DELETE FROM materializations WHERE run_id = ? AND ended_us IS NULL", run_id)

    def restore_start(self, run_id: int, started_us: int) -> None:
        """Record a run that a restored database lacks, without an end, or that it began no later than a time."""
        with self._database.transaction():
            self._insert(run_id, started_us, 0)
            changes = f"started_us = ?, checksum = {RUN_SUM.changed({'started_us': '?'})}"
            sql = f"UPDATE materializations SET {changes} WHERE run_id = ? AND started_us > ?"
            self._database.execute(sql, started_us, started_us, run_id, started_us)

    def check_all(self) -> None:
        """Check that no row of the ledger was altered or is missing.

        Raises:
            StoreError: one was, or the database is unavailable.
        """
        for (run_id,) in self._database.query(_INCOMPLETE):
            raise _altered(f"run {run_id}", "lacks rows in the database")
        for partition in self.last_positions():
            self._read_coverage(partition, "coverage WHERE partition = ?")
        self.times()

    def last_run(self) -> int:
        """Return the id of the latest run; 0: there is none."""
        rows = self._database.query("SELECT max(run_id) FROM materializations")
        return (rows[0][0] if rows else None) or 0

    def last_positions(self) -> dict[str, int]:
        """Return the last position of each partition that a finished run has covered; -1: it had no rows."""
        return dict(self._database.query(_LAST_POSITIONS))

    def last_position(self, partition: str) -> int | None:
        """Return the last covered position of a partition; -1: it had no rows; None: no finished run has covered it."""
        sql = (
            f"SELECT run_id, last_position, {COVERAGE_SUM.is_intact} FROM coverage WHERE partition = ?"
            " ORDER BY last_position DESC LIMIT 1"
        )
        for run_id, last, is_intact in self._database.query(sql, partition):
            _check_intact(partition, np.array([[run_id], [is_intact]]))
            return int(last)
        return None

    def last_end_us(self, partition: str) -> int | None:
        """Return the end of the latest run that covered positions of a partition; None: no run has."""
        sql = "SELECT ended_us FROM coverage WHERE partition = ? ORDER BY run_id DESC LIMIT 1"
        rows = self._database.query(sql, partition)
        return rows[0][0] if rows else None

    def last_finished(self) -> int:
        """Return the id of the latest finished run; 0: there is none."""
        rows = self._database.query("SELECT max(run_id) FROM materializations WHERE ended_us IS NOT NULL")
        return (rows[0][0] if rows else None) or 0

    def known_ranges(self, partition: str, upto: int | None = None) -> KnownRanges:
        """Return the ranges of a partition's log positions with the first run that applied them.

        Args:
            upto: the last run that counts; None: all runs count.
        """
        ranges = self._known.get(partition, _NO_RANGES)
        source = "coverage WHERE partition = ? AND last_position > ?"
        covered = self._read_coverage(partition, source, ranges.end)
        if covered.size:
            ranges = self._known[partition] = ranges.extend(covered)
        return ranges if upto is None else ranges.select(ranges.run_id <= upto)

    def recent_ranges(self, partition: str, runs: int) -> KnownRanges:
        """Return the ranges of the last positions of a partition, which the latest runs have applied."""
        source = "(SELECT * FROM coverage WHERE partition = ? ORDER BY last_position DESC LIMIT ?) AS latest"
        covered = self._read_coverage(partition, source, runs + 1)
        # A run that applied positions up to this one at most does not matter for later positions.
        after = int(covered[2].min()) if covered.shape[1] > runs else -1
        return KnownRanges.build(covered, after)

    def times(self) -> RunTimes:
        """Return the times of all runs; only new runs, and a run that had not ended, are read."""
        times = self._final
        last = int(times.run_id[-1]) if len(times.run_id) else 0
        later = read_integers(self._database, _TIMES, "materializations WHERE run_id > ?", last)
        _check_intact("runs", later)
        times = times.extend(later[:-1])
        self._final = times if times.has_ended[-1:].all() else times.head(len(times.run_id) - 1)
        return times

    @contextmanager
    def _fence(self, lease: Lease | None) -> Iterator[None]:
        with self._database.transaction():
            if lease is not None:
                self._leases.check(lease)
            yield

    def _insert(self, run_id: int, started_us: int, skew_us: int) -> None:
        self._database.execute(
            "INSERT INTO materializations (run_id, started_us, skew_us, covered, checksum) VALUES (?, ?, ?, 0, ?) "
            "ON CONFLICT DO NOTHING",
            run_id,
            started_us,
            skew_us,
            RUN_SUM.compute(run_id, started_us, skew_us, None, 0),
        )

    def _cover(self, run_id: int, partition: str, part: Coverage, ended_us: int) -> None:
        self._database.execute(
            "INSERT INTO coverage (partition, run_id, first_position, last_position, kind, ended_us, checksum) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            partition,
            run_id,
            *part,
            ended_us,
            COVERAGE_SUM.compute(run_id, part.first, part.last, part.kind == "live", ended_us),
        )

    def _read_coverage(self, partition: str, source: str, *values: Value) -> Int64Array:
        covered = read_integers(self._database, _COVERAGE, source, partition, *values)
        _check_intact(partition, covered)
        return covered[:-1]


def _check_intact(partition: str, rows: Int64Array) -> None:
    """Check rows with the run's id first, and last whether each has its checksum, shape ``(columns, n)``."""
    if not rows[-1].all():
        raise _altered(f"run {rows[0, np.argmin(rows[-1])]}", f"was altered in the database, in a row of {partition}")


def _altered(thing: str, problem: str) -> StoreError:
    return StoreError(thing, problem, fix="restore the database from a backup that is older than this")
