"""The assembler: builds a model's input matrix, for training and serving alike.

SEMANTICS 6.2: float64 throughout; null, missing, expired, future and unknown category are NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from skewless.contract.columns import PREDICTION, REQUEST, FeatureRef
from skewless.contract.errors import DefinitionError
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.rows import ViewRead
from skewless.contract.status import BoolArray, Int64Array, Status, StatusArray, row_status
from skewless.contract.transforms import Columns, TransformRunner, input_dtype
from skewless.contract.windows.view import WindowView

Matrix = npt.NDArray[np.float64]
Vocabularies = Mapping[str, Sequence[str]]
_Index = slice | list[int]


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """The model's input for n rows, and the status of the rows that were read.

    Args:
        matrix: float64, C-contiguous, shape ``(n, n_features)``; NaN is missing.
        status: per view, the status of the row read, shape ``(n,)``.
    """

    matrix: Matrix
    status: Mapping[str, StatusArray]


@dataclass(frozen=True, kw_only=True)
class _NumberColumns:
    """The positions of a view's numeric features: in the matrix (``columns``, ``numbers``) and in the view."""

    columns: _Index
    numbers: list[int]
    features: _Index

    @classmethod
    def of(cls, pairs: Sequence[tuple[int, int]]) -> _NumberColumns:
        columns, features = [column for column, _ in pairs], [feature for _, feature in pairs]
        return cls(columns=_index(columns), numbers=columns, features=_index(features))


class Assembler:
    """Builds the matrix of one service from the reads of its views and the request fields.

    Args:
        plan: the part of the plan that the model pins (``FeaturePlan.select_service``).
        vocabularies: per text column, its categories in the order of their codes.

    Attributes:
        codes: per text column, the code of each category.
    """

    def __init__(self, plan: FeaturePlan, vocabularies: Vocabularies) -> None:
        self.plan = plan
        self.refs = plan.services[0].features
        self.labels = tuple(ref.label for ref in self.refs)
        self.codes = {label: {word: float(i) for i, word in enumerate(words)} for label, words in vocabularies.items()}
        self._numbers = {view.name: self._find_numbers(view) for view in plan.all_views}

    # Not at once: views are also read with parts of a plan that lack the inputs of its transforms.
    @cached_property
    def _input_types(self) -> Mapping[FeatureRef, str]:
        return {ref: input_dtype(self.plan, ref).numpy for item in self.plan.transforms for ref in item.inputs}

    @cached_property
    def view_refs(self) -> tuple[FeatureRef, ...]:
        """All features of views that the service or its transforms read."""
        inputs = [ref for item in self.plan.transforms for ref in item.inputs]
        return tuple(ref for ref in dict.fromkeys([*self.refs, *inputs]) if ref.group in self._numbers)

    @cached_property
    def runners(self) -> tuple[TransformRunner, ...]:
        """Return the runners of the plan's transforms."""
        return tuple(TransformRunner.from_plan(self.plan, item) for item in self.plan.transforms)

    @property
    def categorical(self) -> tuple[int, ...]:
        """Return the positions of the text columns."""
        return tuple(i for i, ref in enumerate(self.refs) if self.plan.dtype(ref).is_text)

    def assemble(self, t: Int64Array, reads: Mapping[str, ViewRead], request: Columns) -> Vectors:
        """Return the vectors of n rows at times ``t``.

        Args:
            t: prediction times, microseconds, shape ``(n,)``.
            reads: per view of the plan, its read for the n rows.
            request: per request field, its values, shape ``(n,)``.
        """
        # Expired and future rows count as missing, for features and for the inputs of transforms.
        status = {view.name: view_status(reads[view.name], t, view.ttl_us) for view in self.plan.all_views}
        outputs = self.outputs(t, lambda ref: self._column(ref, reads, status, request, {}))
        matrix = np.empty((len(t), len(self.refs)), dtype=np.float64)
        copied = self._copy_blocks(matrix, reads, status)
        for i, ref in enumerate(self.refs):
            if i not in copied:
                matrix[:, i] = self.number(ref.label, self._column(ref, reads, status, request, outputs))
        return Vectors(matrix=matrix, status=status)

    @cached_property
    def joins_blocks(self) -> bool:
        """Whether ``BlockJoin`` can make the matrix: texts of views are categories, and no views share a name."""
        texts = [ref for ref in self.view_refs if self.plan.dtype(ref).is_text]
        names = [view.name for view in self.plan.all_views]
        is_category = all(ref.label in self.codes and ref not in self._input_types for ref in texts)
        return bool(self.view_refs) and len(set(names)) == len(names) and is_category

    def collect_vocabularies(
        self, t: Int64Array, reads: Mapping[str, ViewRead], request: Columns, rows: BoolArray
    ) -> dict[str, list[str]]:
        """Return the vocabulary of each text column: its sorted categories in the chosen rows."""
        status = {view.name: view_status(reads[view.name], t, view.ttl_us) for view in self.plan.all_views}
        text = [ref for ref in self.refs if self.plan.dtype(ref).is_text]
        outputs = self.outputs(t, lambda ref: self._column(ref, reads, status, request, {}))
        columns = {ref.label: self._column(ref, reads, status, request, outputs)[rows] for ref in text}
        return {label: sorted({word for word in column if word is not None}) for label, column in columns.items()}

    def assemble_columns(self, t: Int64Array, reads: Mapping[str, ViewRead], request: Columns) -> Columns:
        """Return the columns of the vectors by label, before text becomes numbers; arguments as for ``assemble``.

        Numbers of views are float64, NaN for null; request fields and outputs of transforms are unchanged.
        """
        status = {view.name: view_status(reads[view.name], t, view.ttl_us) for view in self.plan.all_views}
        outputs = self.outputs(t, lambda ref: self._column(ref, reads, status, request, {}))
        return {ref.label: self._column(ref, reads, status, request, outputs) for ref in self.refs}

    def _find_numbers(self, view: View | WindowView) -> _NumberColumns | None:
        positions = {column.name: i for i, column in enumerate(view.features) if not column.dtype.is_text}
        pairs = [
            (i, positions[ref.name])
            for i, ref in enumerate(self.refs)
            if ref.group == view.name and ref.name in positions
        ]
        return _NumberColumns.of(pairs) if pairs else None

    def _copy_blocks(
        self, matrix: Matrix, reads: Mapping[str, ViewRead], status: Mapping[str, StatusArray]
    ) -> set[int]:
        """Copy the numbers of all views that have a block; return the copied columns of the matrix."""
        copied: set[int] = set()
        for name, numbers in self._numbers.items():
            block = reads[name].block
            if block is not None and numbers is not None:
                matrix[:, numbers.columns] = block[:, numbers.features]
                absent = np.flatnonzero(status[name] != Status.PRESENT)
                if len(absent):
                    matrix[absent[:, None], numbers.numbers] = np.nan
                copied.update(numbers.numbers)
        return copied

    def outputs(
        self, t: Int64Array, find: Callable[[FeatureRef], npt.NDArray[Any]]
    ) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Return the outputs of all transforms at times ``t``; ``find`` returns the column of an input."""
        return {
            runner.transform.name: runner.run(
                {
                    ref.name: t if ref.group == PREDICTION else find(ref).astype(self._input_types[ref])
                    for ref in runner.transform.inputs
                }
            )
            for runner in self.runners
        }

    def _column(
        self,
        ref: FeatureRef,
        reads: Mapping[str, ViewRead],
        status: Mapping[str, StatusArray],
        request: Columns,
        outputs: Mapping[str, Columns],
    ) -> npt.NDArray[Any]:
        if ref.group == REQUEST:
            return request[ref.name]
        if ref.group in outputs:
            return outputs[ref.group][ref.name]
        return _mask_values(reads[ref.group], status[ref.group], ref.name)

    def number(self, label: str, column: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return a column of the matrix: numbers, or the codes of texts."""
        if column.dtype != object:
            return _widen(column)
        codes = self.codes.get(label)
        if codes is None:
            raise DefinitionError(
                f"feature {label!r}", "is text without a vocabulary", fix="train the model again with this plan"
            )
        return np.fromiter((codes.get(word, np.nan) for word in column), dtype=np.float64, count=len(column))


class BlockJoin:
    """Makes the matrix of ``Assembler.assemble`` from one block of the features of views, if ``joins_blocks``.

    Args:
        assembler: of the service.
        columns: the features of the block's columns; at least all ``view_refs``.
    """

    def __init__(self, assembler: Assembler, columns: Sequence[FeatureRef]) -> None:
        self._assembler = assembler
        self._positions = {ref: i for i, ref in enumerate(columns)}
        self._others = [ref for ref in assembler.refs if ref not in self._positions]
        order = [[*columns, *self._others].index(ref) for ref in assembler.refs]
        self._order = None if order == list(range(len(columns) + len(self._others))) else order

    def join(self, block: Matrix, t: int, request: Columns) -> Matrix:
        """Return the matrix of n rows at time ``t``, microseconds.

        Args:
            block: shape ``(n, n_columns)``; NaN where a row is not PRESENT; of texts the codes.
            request: per request field, its values, shape ``(n,)``.
        """
        if self._others:
            times = np.full(len(block), t, dtype=np.int64)
            outputs = self._assembler.outputs(
                times, lambda ref: request[ref.name] if ref.group == REQUEST else block[:, self._positions[ref]]
            )
            columns = [outputs.get(ref.group, request)[ref.name] for ref in self._others]
            numbers = map(self._assembler.number, [ref.label for ref in self._others], columns)
            block = np.column_stack([block, *numbers])
        return block if self._order is None else block.take(self._order, axis=1)


def view_status(read: ViewRead, t: Int64Array | int, ttl_us: int) -> StatusArray:
    """Return the status of each row of a read at times ``t``."""
    if not read.available:
        return np.full(len(read.has_row), Status.UNAVAILABLE, dtype=np.uint8)
    status = row_status(read.has_row, read.versions.event_ts, t, ttl_us)
    if read.unavailable is not None:
        status[read.unavailable] = Status.UNAVAILABLE
    return status


def null_mask(read: ViewRead, status: StatusArray, name: str) -> BoolArray:
    """Return where a feature is null for the model: everywhere but in PRESENT rows with a value."""
    return np.asarray(read.nulls[name] | (status != Status.PRESENT), dtype=np.bool_)


def _mask_values(read: ViewRead, status: StatusArray, name: str) -> npt.NDArray[Any]:
    null = null_mask(read, status, name)
    values = read.values[name]
    if values.dtype == object:
        present = values.copy()
        present[null] = None
        return present
    return np.where(null, np.nan, _widen(values))


def _widen(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # a signalling NaN is widened to a quiet one
        return values.astype(np.float64)


def _index(numbers: list[int]) -> _Index:
    """Return the fastest index for some positions: a slice if they are adjacent."""
    first, last = numbers[0], numbers[-1]
    return slice(first, last + 1) if numbers == list(range(first, last + 1)) else numbers
