"""Find the values of a model's vectors and requests that are outside its bounds, for many rows at once."""

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

_SMALL_BATCH = 8  # rows up to which a Python loop is faster than numpy


class Breach(NamedTuple):
    """A value outside its bound.

    Args:
        field: the name of the field in the request.
        name: the name in reports: one of ``BoundsCheck.names``.
    """

    row: int
    field: str
    name: str
    value: object
    bound: Bound


class _Field(NamedTuple):
    """A key or request field: its position in the report, its bound and the check of its values."""

    name: str
    position: int
    bound: Bound
    find_outside: Callable[[Sequence[Any] | npt.NDArray[Any]], BoolArray | None]


class BoundsCheck:
    """Checks vectors and requests of one model against its bounds.

    A missing value of a vector (NaN) is never a breach: its view's status says why it is missing. A null of a key or
    request field is a breach if its bound is not nullable. The check changes no value.

    Args:
        plan: the part of the plan that the model pins (``FeaturePlan.select_service``).
        vocabularies: per text column of the vector, its categories in the order of their codes.
        bounds: at least one.

    Attributes:
        names: the bounded columns: labels of vector columns, then keys and fields that are not vector columns.
    """

    def __init__(self, plan: FeaturePlan, vocabularies: Vocabularies, bounds: Bounds) -> None:
        self._bounds = bounds
        refs = plan.services[0].features
        columns = [i for i, ref in enumerate(refs) if ref.label in bounds.features]
        labels = {ref.name: ref.label for ref in refs if ref.group == REQUEST}
        fields = {name: labels.get(name, name) for name in bounds.fields}
        self.names = tuple(dict.fromkeys([*(refs[i].label for i in columns), *fields.values()]))
        self._vector_columns = _BoundColumns(columns, [refs[i].label for i in columns], bounds, vocabularies)
        from_views = [i for i in columns if refs[i].group != REQUEST]
        self._view_columns = _BoundColumns(from_views, [refs[i].label for i in from_views], bounds, vocabularies)
        self._keys = frozenset(column.name for column in plan.join_keys)
        self._fields = [
            _Field(name, self.names.index(report_name), bounds.fields[name], _compile_check(bounds.fields[name]))
            for name, report_name in fields.items()
        ]

    def find_outside(self, matrix: Matrix, rows: ParsedRows | None) -> BoolArray | None:
        """Return where values are outside their bounds, shape ``(n, len(names))``; None: nowhere.

        Args:
            matrix: the model's input, float64, shape ``(n, n_features)``.
            rows: the parsed rows of the request; None: the caller sent vectors.
        """
        group = self._vector_columns if rows is None else self._view_columns
        breaches: list[tuple[list[int] | int, BoolArray]] = []
        outside_columns = group.find_outside(matrix)
        if outside_columns is not None:
            breaches.append(([self.names.index(label) for label in group.labels], outside_columns))
        if rows is not None:
            breaches.extend(self._check_fields(rows))
        if not breaches:
            return None
        outside = np.zeros((len(matrix), len(self.names)), dtype=np.bool_)
        for position, mask in breaches:
            outside[:, position] = mask
        return outside

    def first_field_breach(self, columns: Mapping[str, Sequence[Any]]) -> Breach | None:
        """Return the first breach among the keys and request fields of parsed rows, or None.

        Args:
            columns: per key and request field, the values of the rows, from ``RowParser.parse_rows``.
        """
        for item in self._fields:
            contains = item.bound.contains
            for row, value in enumerate(columns[item.name]):
                if not contains(value):
                    return Breach(row, item.name, self.names[item.position], value, item.bound)
        return None

    def first_vector_breach(self, matrix: Matrix) -> Breach | None:
        """Return the first breach in vectors that a caller sent, or None."""
        outside = self._vector_columns.find_outside(matrix)
        if outside is None:
            return None
        row, column = (int(index[0]) for index in np.nonzero(outside))
        label = self._vector_columns.labels[column]
        value = float(matrix[row, self._vector_columns.columns[column]])
        return Breach(row, label, label, value, self._bounds.features[label])

    def _check_fields(self, rows: ParsedRows) -> Iterator[tuple[int, BoolArray]]:
        for item in self._fields:
            outside = item.find_outside(rows.keys[item.name] if item.name in self._keys else rows.fields[item.name])
            if outside is not None:
                yield item.position, outside


class _BoundColumns:
    """The bounded columns of a matrix, checked together."""

    def __init__(
        self, columns: Sequence[int], labels: Sequence[str], bounds: Bounds, vocabularies: Vocabularies
    ) -> None:
        self.labels = labels
        self.columns = list(columns)
        # A slice of neighbours is a view; an index list would copy.
        neighbours = self.columns == list(range(self.columns[0], self.columns[-1] + 1)) if self.columns else False
        self._index = slice(self.columns[0], self.columns[-1] + 1) if neighbours else self.columns
        column_bounds = [bounds.features[label] for label in labels]
        self._low = np.array([-np.inf if bound.low is None else bound.low for bound in column_bounds])
        self._high = np.array([np.inf if bound.high is None else bound.high for bound in column_bounds])
        self._sets = [
            (i, _numbers(bound.allowed, vocabularies.get(label)))
            for i, (label, bound) in enumerate(zip(labels, column_bounds, strict=True))
            if bound.allowed is not None
        ]

    def find_outside(self, matrix: Matrix) -> BoolArray | None:
        """Return where numbers are outside their bounds, shape ``(n, len(labels))``; None: nowhere."""
        if not self.columns:
            return None
        values = matrix[:, self._index]
        outside: BoolArray = (values < self._low) | (values > self._high)
        for i, allowed in self._sets:
            column = values[:, i]
            outside[:, i] |= ~(np.isin(column, allowed) | np.isnan(column))
        return outside if outside.any() else None


def _numbers(allowed: Sequence[Any], words: Sequence[str] | None) -> npt.NDArray[np.float64]:
    """Return the numbers that encode allowed values in a matrix: the values, or the codes of categories."""
    if words is None:
        return np.array(allowed, dtype=np.float64)
    inside = set(allowed)
    return np.array([code for code, word in enumerate(words) if word in inside], dtype=np.float64)


def _compile_check(bound: Bound) -> Callable[[Sequence[Any] | npt.NDArray[Any]], BoolArray | None]:
    """Return a function that finds values of a request field outside a bound; it returns None if there are none."""
    low, high = (-np.inf if bound.low is None else bound.low), (np.inf if bound.high is None else bound.high)
    allowed = None if bound.allowed is None else np.array(bound.allowed)
    contains = bound.contains

    def find_outside(values: Sequence[Any] | npt.NDArray[Any]) -> BoolArray | None:
        if not isinstance(values, np.ndarray) or values.dtype == object or len(values) <= _SMALL_BATCH:
            inside = [contains(value) for value in values]
            return None if all(inside) else ~np.array(inside)
        null = np.isnan(values) if values.dtype.kind == "f" else False
        outside: BoolArray = (values < low) | (values > high)
        if allowed is not None:
            outside |= ~(np.isin(values, allowed) | null)
        if not bound.nullable:
            outside |= null
        return outside if outside.any() else None

    return find_outside
