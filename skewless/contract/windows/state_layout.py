"""Which words the state of a windowed view consists of, and how they merge (SEMANTICS 3.3).

A state is a column of int64 words; n states are a matrix of shape ``(width, n)``. Words of one kind lie together::

    add      n, S1 as 2 words, S2 as 3        of each column that is counted or summed
    min,max  float64 bits, NaN for nothing
    first,   ts, partition, seq, value        ordered by the first three, so that there are no ties
    last

What ``count_distinct`` sees of one event is a hash beside the words; see ``skewless.contract.windows.sketch``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skewless.contract.names import partition_hash
from skewless.contract.status import Int64Array
from skewless.contract.windows.aggregate_inputs import AggregateInputs
from skewless.contract.windows.fixed_point import carry, square_words, sum_words
from skewless.contract.windows.view import SQUARED, SUMMED, Function, WindowView

NEVER = np.int64(2**63 - 1)
EVER = np.int64(-(2**63))
NOTHING = np.float64(np.nan).view(np.int64)
_MOMENT_WORDS = 4
_COUNTED = frozenset({Function.COUNT, *SUMMED})


@dataclass(frozen=True, kw_only=True)
class EventOrigins:
    """Where events come from, each an int64 array of shape ``(n,)``.

    Args:
        ts: event time, microseconds.
        partition: hash of the log partition, as a signed number.
        seq: position in it.
    """

    ts: Int64Array
    partition: Int64Array
    seq: Int64Array


def partition_number(partition: str) -> np.int64:
    """Return the number that stands for a log partition in states: the hash of its name, as a signed number."""
    return np.uint64(partition_hash(partition)).view(np.int64)


class StateLayout:
    """The words of one view.

    Attributes:
        width: how many words a state has.
        sums: per counted column, the place of its count; sums and squares follow it.
        hashed: the columns of ``count_distinct``, in order.
    """

    def __init__(self, view: WindowView) -> None:
        used: dict[str, set[Function]] = {}
        for item in view.aggregates:
            used.setdefault(item.column, set()).add(item.function)
        self.columns = tuple(used)
        self.sums: dict[str, int] = {}
        self._words: dict[str, int] = {}
        place = 0
        for column, functions in used.items():
            if functions & _COUNTED:
                self.sums[column] = place
                self._words[column] = 6 if functions & SQUARED else 3 if functions & SUMMED else 1
                place += self._words[column]
        self.added = place
        self.extremes: dict[tuple[str, Function], int] = {}
        self.moments: dict[tuple[str, Function], int] = {}
        for function in (Function.MIN, Function.MAX):
            for column in (column for column, functions in used.items() if function in functions):
                self.extremes[column, function] = place
                place += 1
        for function in (Function.FIRST, Function.LAST):
            for column in (column for column, functions in used.items() if function in functions):
                self.moments[column, function] = place
                place += _MOMENT_WORDS
        self.width = place
        self.hashed = tuple(column for column, functions in used.items() if Function.COUNT_DISTINCT in functions)

    def empty(self, n: int) -> Int64Array:
        """Return n states of nothing."""
        words = np.zeros((self.width, n), dtype=np.int64)
        for place in self.extremes.values():
            words[place] = NOTHING
        for (_, function), place in self.moments.items():
            words[place] = NEVER if function is Function.FIRST else EVER
            words[place + 3] = NOTHING
        return words

    def of_events(self, measured: Mapping[str, AggregateInputs], origin: EventOrigins) -> Int64Array:
        """Return the state that each event makes by itself, shape ``(width, n)``.

        Args:
            measured: per column, what the events hold.
        """
        words = self.empty(len(origin.ts))
        for column, place in self.sums.items():
            values = measured[column]
            words[place] = ~values.null
            if self._words[column] > 1:
                words[place + 1], words[place + 2] = sum_words(values.fixed)
            if self._words[column] > 3:  # noqa: PLR2004 - count and sum
                words[place + 3 : place + 6] = square_words(values.fixed)
        for (column, _), place in self.extremes.items():
            words[place] = measured[column].value.view(np.int64)
        for (column, function), place in self.moments.items():
            values = measured[column]
            nobody = NEVER if function is Function.FIRST else EVER
            words[place] = np.where(values.null, nobody, origin.ts)
            words[place + 1] = np.where(values.null, 0, origin.partition)
            words[place + 2] = np.where(values.null, 0, origin.seq)
            words[place + 3] = values.value.view(np.int64)
        return words

    def merged(self, words: Int64Array, starts: npt.NDArray[np.intp]) -> Int64Array:
        """Return the merged states of groups of neighbours, shape ``(width, n_groups)``.

        Args:
            words: shape ``(width, n)``, n at least 1 where there are groups.
            starts: where each group begins, growing from 0; none is empty.
        """
        n = words.shape[1]
        result = np.empty((self.width, len(starts)), dtype=np.int64)
        if not len(starts):
            return result
        if self.added:
            result[: self.added] = np.add.reduceat(words[: self.added], starts, axis=1)
            self.carry(result)
        for (_, function), place in self.extremes.items():
            better = np.fmin if function is Function.MIN else np.fmax
            result[place] = better.reduceat(words[place].view(np.float64), starts).view(np.int64)
        ends = np.append(starts[1:], n)
        for (_, function), place in self.moments.items():
            group = np.repeat(np.arange(len(starts)), ends - starts)
            order = np.lexsort((words[place + 2], words[place + 1], words[place], group))
            chosen = order[starts] if function is Function.FIRST else order[ends - 1]
            result[place : place + _MOMENT_WORDS] = words[place : place + _MOMENT_WORDS, chosen]
        return result

    def carry(self, words: Int64Array) -> None:
        """Bring added words back into their ranges, in place."""
        for column, place in self.sums.items():
            for first, last in ((1, 3), (3, 6)):
                if self._words[column] >= last:
                    carry(words[place + first : place + last])
