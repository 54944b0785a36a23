"""Columns of many materialization runs, as arrays: a year of runs is too long for a Python object each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from skewless.contract.status import BoolArray, Int64Array
from skewless.infra.storage.database import Database, Value


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
        columns: list[Any] = [column[mask] for column in self]
        return type(self)(*columns)

    def extend(self, covered: Int64Array) -> Self:
        """Return these ranges and those of later runs; see ``build``."""
        later = self.build(covered, self.end)
        columns: list[Any] = [np.concatenate(pair) for pair in zip(self, later, strict=True)]
        return type(self)(*columns) if len(later.last) else self


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
        columns: list[Any] = [column[:n] for column in self]
        return type(self)(*columns)

    def extend(self, later: Int64Array) -> Self:
        """Return these runs and later ones; see ``build``."""
        if not later.size:
            return self
        columns: list[Any] = [np.concatenate(pair) for pair in zip(self, self.build(later), strict=True)]
        return type(self)(*columns)


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
