"""Which values of a model's vectors and requests lie outside its bounds, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from skewless.contract.bounds import Bound, Bounds
from skewless.contract.columns import REQUEST
from skewless.contract.plan import FeaturePlan
from skewless.contract.request import ParsedRows
from skewless.contract.status import BoolArray
from skewless.contract.vector import Matrix, Vocabularies

_FEW = 8  # up to here a loop is faster than numpy


class Breach(NamedTuple):
    """A value outside its bound.

    Args:
        field: how the caller calls it.
        name: how it is reported: one of ``BoundsCheck.names``.
    """

    row: int
    field: str
    name: str
    value: object
    bound: Bound


class _Field(NamedTuple):
    """A key or request field: where it is reported, and what holds of it."""

    name: str
    place: int
    bound: Bound
    broken: Callable[[Sequence[Any] | npt.NDArray[Any]], BoolArray | None]


class BoundsCheck:
    """Holds vectors and requests of one model against its bounds.

    A missing value of a vector (NaN) is inside: its view's status says why it is missing. A key or request field has
    its nulls judged too. Nothing is altered.

    Args:
        plan: the part of the plan that the model pins.
        vocabularies: per text column of the vector, its categories in the order of their codes.
        bounds: at least one.

    Attributes:
        names: what is bounded: labels of the vector's columns, then keys and fields that are no such column.
    """

    def __init__(self, plan: FeaturePlan, vocabularies: Vocabularies, bounds: Bounds) -> None:
        self._bounds = bounds
        refs = plan.services[0].features
        columns = [i for i, ref in enumerate(refs) if ref.label in bounds.features]
        labels = {ref.name: ref.label for ref in refs if ref.group == REQUEST}
        fields = {name: labels.get(name, name) for name in bounds.fields}
        self.names = tuple(dict.fromkeys([*(refs[i].label for i in columns), *fields.values()]))
        self._sent = _BoundColumns(columns, [refs[i].label for i in columns], bounds, vocabularies)
        looked_up = [i for i in columns if refs[i].group != REQUEST]
        self._looked_up = _BoundColumns(looked_up, [refs[i].label for i in looked_up], bounds, vocabularies)
        self._keys = frozenset(column.name for column in plan.join_keys)
        self._fields = [
            _Field(name, self.names.index(shown), bounds.fields[name], _judge(bounds.fields[name]))
            for name, shown in fields.items()
        ]

    def outside(self, matrix: Matrix, ask: ParsedRows | None) -> BoolArray | None:
        """Return where values lie outside, shape ``(n, len(names))``; None: nowhere.

        Args:
            matrix: what the model sees, float64, shape ``(n, n_features)``.
            ask: the rows that were asked for; None: the caller sent the vectors.
        """
        group = self._sent if ask is None else self._looked_up
        found: list[tuple[list[int] | int, BoolArray]] = []
        broken = group.broken(matrix)
        if broken is not None:
            found.append(([self.names.index(label) for label in group.labels], broken))
        if ask is not None:
            found.extend(self._broken_fields(ask))
        if not found:
            return None
        outside = np.zeros((len(matrix), len(self.names)), dtype=np.bool_)
        for place, mask in found:
            outside[:, place] = mask
        return outside

    def first_sent(self, columns: Mapping[str, Sequence[Any]]) -> Breach | None:
        """Return the first key or request field of parsed rows that lies outside, None if none does.

        Args:
            columns: per key and request field, the values of the rows, as ``RowParser`` returns them.
        """
        for item in self._fields:
            holds = item.bound.holds
            for row, value in enumerate(columns[item.name]):
                if not holds(value):
                    return Breach(row, item.name, self.names[item.place], value, item.bound)
        return None

    def first_number(self, matrix: Matrix) -> Breach | None:
        """Return the first value of vectors that a caller sent that lies outside, None if none does."""
        outside = self._sent.broken(matrix)
        if outside is None:
            return None
        row, place = (int(index[0]) for index in np.nonzero(outside))
        label = self._sent.labels[place]
        return Breach(row, label, label, float(matrix[row, self._sent.columns[place]]), self._bounds.features[label])

    def _broken_fields(self, ask: ParsedRows) -> Iterator[tuple[int, BoolArray]]:
        for item in self._fields:
            broken = item.broken(ask.keys[item.name] if item.name in self._keys else ask.fields[item.name])
            if broken is not None:
                yield item.place, broken


class _BoundColumns:
    """Some columns of a matrix, and what holds of their numbers."""

    def __init__(
        self, columns: Sequence[int], labels: Sequence[str], bounds: Bounds, vocabularies: Vocabularies
    ) -> None:
        self.labels = labels
        self.columns = list(columns)
        neighbours = self.columns == list(range(self.columns[0], self.columns[-1] + 1)) if self.columns else False
        self._index = slice(self.columns[0], self.columns[-1] + 1) if neighbours else self.columns
        found = [bounds.features[label] for label in labels]
        self._low = np.array([-np.inf if bound.low is None else bound.low for bound in found])
        self._high = np.array([np.inf if bound.high is None else bound.high for bound in found])
        self._sets = [
            (i, _numbers(bound.allowed, vocabularies.get(label)))
            for i, (label, bound) in enumerate(zip(labels, found, strict=True))
            if bound.allowed is not None
        ]

    def broken(self, matrix: Matrix) -> BoolArray | None:
        """Return where numbers lie outside, shape ``(n, len(labels))``; None: nowhere."""
        if not self.columns:
            return None
        values = matrix[:, self._index]
        outside: BoolArray = (values < self._low) | (values > self._high)
        for i, allowed in self._sets:
            column = values[:, i]
            outside[:, i] |= ~(np.isin(column, allowed) | np.isnan(column))
        return outside if outside.any() else None


def _numbers(allowed: Sequence[Any], words: Sequence[str] | None) -> npt.NDArray[np.float64]:
    """Return the numbers that stand for allowed values in a matrix: themselves, or the codes of words."""
    if words is None:
        return np.array(allowed, dtype=np.float64)
    inside = set(allowed)
    return np.array([code for code, word in enumerate(words) if word in inside], dtype=np.float64)


def _judge(bound: Bound) -> Callable[[Sequence[Any] | npt.NDArray[Any]], BoolArray | None]:
    """Return what tells where values of a field, as a request has them, lie outside; None: nowhere."""
    low, high = (-np.inf if bound.low is None else bound.low), (np.inf if bound.high is None else bound.high)
    allowed = None if bound.allowed is None else np.array(bound.allowed)
    holds = bound.holds

    def broken(values: Sequence[Any] | npt.NDArray[Any]) -> BoolArray | None:
        if not isinstance(values, np.ndarray) or values.dtype == object or len(values) <= _FEW:
            inside = [holds(value) for value in values]
            return None if all(inside) else ~np.array(inside)
        null = np.isnan(values) if values.dtype.kind == "f" else False
        outside: BoolArray = (values < low) | (values > high)
        if allowed is not None:
            outside |= ~(np.isin(values, allowed) | null)
        if not bound.nullable:
            outside |= null
        return outside if outside.any() else None

    return broken
