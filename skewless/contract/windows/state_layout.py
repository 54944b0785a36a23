"""The layout of a windowed view's states, how states merge (SEMANTICS 3.3), and the features of merged states (3.4).

A state is a column of int64 words; n states are a matrix of shape ``(width, n)``. Words of one kind are adjacent::

    add      n, S1 as 2 words, S2 as 3        of each column that is counted or summed
    min,max  float64 bits, NaN for nothing
    first,   ts, partition, seq, value        ordered by the first three, which are unique; k times for the first
    last                                      or last k values, the earliest or latest first, nothing where fewer

For ``count_distinct``, an event has hashes next to its words; see ``skewless.contract.windows.sketch``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from skewless.contract.names import partition_hash
from skewless.contract.status import Int64Array
from skewless.contract.windows.aggregate_inputs import AggregateInputs
from skewless.contract.windows.fixed_point import Floats, carry_words, square_words, sum_words, sums_and_means, variance
from skewless.contract.windows.view import SQUARED, SUMMED, Aggregate, Function, WindowView

NEVER = np.int64(2**63 - 1)  # later than any time
EVER = np.int64(-(2**63))  # earlier than any time
NOTHING = np.float64(np.nan).view(np.int64)
FIRST_LAST_WORDS = 4
_COUNTED = frozenset({Function.COUNT, *SUMMED})
# Looking up a member of an enum takes as long as a numpy call on a small array.
_COUNT, _SUM, _STD, _MIN, _FIRST = Function.COUNT, Function.SUM, Function.STD, Function.MIN, Function.FIRST
_DISTINCT, _EXTREMES = Function.COUNT_DISTINCT, frozenset({Function.MIN, Function.MAX})


@dataclass(frozen=True, kw_only=True)
class EventOrigins:
    """The origins of n events, int64 arrays of shape ``(n,)``.

    Args:
        ts: event time, microseconds.
        partition: hash of the log partition, as a signed number.
        seq: position in the partition.
    """

    ts: Int64Array
    partition: Int64Array
    seq: Int64Array

    @classmethod
    def concatenate(cls, parts: Sequence[EventOrigins]) -> EventOrigins:
        """Return the origins of all events of some parts."""
        columns = zip(*((part.ts, part.partition, part.seq) for part in parts), strict=True)
        ts, partition, seq = map(np.concatenate, columns)
        return cls(ts=ts, partition=partition, seq=seq)

    def take(self, events: Int64Array | npt.NDArray[np.intp]) -> EventOrigins:
        """Return the origins of some events."""
        return EventOrigins(ts=self.ts[events], partition=self.partition[events], seq=self.seq[events])


def partition_number(partition: str) -> np.int64:
    """Return the number of a log partition in states: the hash of its name, as a signed number."""
    return np.uint64(partition_hash(partition)).view(np.int64)


class StateLayout:
    """The positions of the words in the states of one view.

    Attributes:
        width: number of words in a state.
        sums: per counted column, the position of its count; sums and squares follow it.
        added: number of words that merge by addition; these come first.
        extremes: per column and function, the position of a minimum or maximum.
        first_last: per column and function, the position of the words of the first or last values, four for each.
        places: per column and function, the number of first or last values.
        hashed: the columns of ``count_distinct``, in order.
    """

    def __init__(self, view: WindowView) -> None:
        functions_of: dict[str, set[Function]] = {}
        for item in view.aggregates:
            functions_of.setdefault(item.column, set()).add(item.function)
        self.columns = tuple(functions_of)
        self.sums: dict[str, int] = {}
        self._words: dict[str, int] = {}
        position = 0
        for column, functions in functions_of.items():
            if functions & _COUNTED:
                self.sums[column] = position
                self._words[column] = 6 if functions & SQUARED else 3 if functions & SUMMED else 1
                position += self._words[column]
        self.added = position
        self.extremes: dict[tuple[str, Function], int] = {}
        self.first_last: dict[tuple[str, Function], int] = {}
        self.places: dict[tuple[str, Function], int] = {}
        for function in (Function.MIN, Function.MAX):
            for column in (column for column, functions in functions_of.items() if function in functions):
                self.extremes[column, function] = position
                position += 1
        for function in (Function.FIRST, Function.LAST):
            for column in (column for column, functions in functions_of.items() if function in functions):
                self.first_last[column, function] = position
                # One sequence serves all windows, so the longest of a column decides.
                most = max(item.place for item in view.aggregates if (item.column, item.function) == (column, function))
                self.places[column, function] = most
                position += most * FIRST_LAST_WORDS
        self.width = position
        self._nothing = np.zeros((self.width, 1), dtype=np.int64)
        self._nothing[list(self.extremes.values())] = NOTHING
        for key in self.first_last:
            values = self.sequence(self._nothing, key)
            values[:, 0] = NEVER if key[1] is _FIRST else EVER
            values[:, 3] = NOTHING
        self.hashed = tuple(
            column for column, functions in functions_of.items() if Function.COUNT_DISTINCT in functions
        )

    def empty(self, n: int) -> Int64Array:
        """Return n states without events."""
        return self._nothing.repeat(n, axis=1)

    def build_states(self, measured: Mapping[str, AggregateInputs], origin: EventOrigins) -> Int64Array:
        """Return the state of each event alone, shape ``(width, n)``.

        Args:
            measured: per column, the aggregate inputs of the events.
            origin: origins of the events.
        """
        words = self.empty(len(origin.ts))
        for column, position in self.sums.items():
            values = measured[column]
            words[position] = ~values.null
            if self._words[column] > 1:
                words[position + 1], words[position + 2] = sum_words(values.fixed)
            if self._words[column] > 3:  # noqa: PLR2004 - count and sum
                words[position + 3 : position + 6] = square_words(values.fixed)
        for (column, _), position in self.extremes.items():
            words[position] = measured[column].value.view(np.int64)
        for (column, function), position in self.first_last.items():
            values = measured[column]
            neutral = NEVER if function is Function.FIRST else EVER  # null loses against any event
            words[position] = np.where(values.null, neutral, origin.ts)
            words[position + 1] = np.where(values.null, 0, origin.partition)
            words[position + 2] = np.where(values.null, 0, origin.seq)
            words[position + 3] = values.value.view(np.int64)
        return words

    def sequence(self, words: Int64Array, key: tuple[str, Function]) -> Int64Array:
        """Return the first or last values in n states, a view of shape ``(places, 4, n)``."""
        position, places = self.first_last[key], self.places[key]
        return words[position : position + places * FIRST_LAST_WORDS].reshape(places, FIRST_LAST_WORDS, -1)

    def merge(self, words: Int64Array, starts: npt.NDArray[np.intp], *, carry: bool = True) -> Int64Array:
        """Return the merged states of groups of adjacent states, shape ``(width, n_groups)``.

        Args:
            words: shape ``(width, n)``, n at least 1 if there are groups.
            starts: start of each group, growing from 0; no group is empty.
            carry: make low words smaller than 2^32 again, so that a later merge may add 2^30 of them.
        """
        n = words.shape[1]
        result = np.empty((self.width, len(starts)), dtype=np.int64)
        if not len(starts):
            return result
        if self.added:
            np.add.reduceat(words[: self.added], starts, axis=1, out=result[: self.added])
            if carry:
                self.carry(result)
        for (_, function), position in self.extremes.items():
            better = np.fmin if function is _MIN else np.fmax
            # fmin and fmax ignore NaN, which is the state without a value.
            result[position] = better.reduceat(words[position].view(np.float64), starts).view(np.int64)
        if self.first_last:
            ends = np.append(starts[1:], n)
            group = np.repeat(np.arange(len(starts)), ends - starts)
            for key in self.first_last:
                self._merge_sequence(result, words, group, starts if key[1] is _FIRST else ends, key)
        return result

    def _merge_sequence(
        self,
        result: Int64Array,
        words: Int64Array,
        group: npt.NDArray[np.intp],
        edges: npt.NDArray[np.intp],
        key: tuple[str, Function],
    ) -> None:
        """Set the first or last values of groups of states.

        Args:
            group: number of each state's group.
            edges: start of each group for first values, and end for last values.
        """
        position, places = self.first_last[key], self.places[key]
        if places > 1:
            # A group has `places` times as many values as states, also empty ones, which lose against any event.
            words = self.sequence(words, key).transpose(1, 0, 2).reshape(FIRST_LAST_WORDS, -1)
            group, edges = np.tile(group, places), edges * places
        else:
            words = words[position : position + FIRST_LAST_WORDS]
        # Sort each group by (ts, partition, seq): FIRST is then the start of the group, LAST its end.
        order = np.lexsort((words[2], words[1], words[0], group))
        for place in range(places):
            chosen = order[edges + place if key[1] is _FIRST else edges - 1 - place]
            result[position : position + FIRST_LAST_WORDS] = words[:, chosen]
            position += FIRST_LAST_WORDS

    def carry(self, words: Int64Array) -> None:
        """Carry the words of sums in place."""
        for column, position in self.sums.items():
            for first, last in ((1, 3), (3, 6)):
                if self._words[column] >= last:
                    carry_words(words[position + first : position + last])


class Finaliser:
    """Computes the features of one view, float64, from merged states; training and serving share it."""

    def __init__(self, view: WindowView) -> None:
        self._view = view
        self._layout = StateLayout(view)

    def compute_features(
        self, items: Iterable[Aggregate], words: Int64Array, distincts: Mapping[str, Floats]
    ) -> Iterator[Floats]:
        """Yield features, each of shape ``(n,)``; NaN is null. Of an empty window, all but counts are null.

        Args:
            words: merged states over the features' window, shape ``(width, n)``.
            distincts: per column of ``count_distinct``, the number of distinct values in the windows.
        """
        layout, quotients = self._layout, {}
        for item in items:
            function, column = item.function, item.column
            if function is _DISTINCT:
                yield distincts[column]
            elif function is _COUNT:
                yield words[layout.sums[column]].astype(np.float64)
            elif function in SQUARED:
                yield self._compute_variance(item, words)
            elif function in SUMMED:
                if column not in quotients:
                    position = layout.sums[column]
                    quotients[column] = sums_and_means(words[position : position + 3], self._view.scales.get(column, 0))
                yield quotients[column][function is not _SUM]
            elif function in _EXTREMES:
                yield words[layout.extremes[column, function]].view(np.float64)
            else:
                yield layout.sequence(words, (column, function))[item.place - 1, 3].view(np.float64)

    def _compute_variance(self, item: Aggregate, words: Int64Array) -> Floats:
        position, scale = self._layout.sums[item.column], self._view.scales.get(item.column, 0)
        defined = np.flatnonzero(words[position] > 1)
        chosen = words[position : position + 6, defined]
        result = np.full(words.shape[1], np.nan)
        values = variance(chosen[0], chosen[1:3], chosen[3:6], scale)
        result[defined] = np.sqrt(values) if item.function is _STD else values
        return result
