"""The training set of a model, in memory or in the storage: labelled rows with their features and their split."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.labels import AnyLabels
from skewless.contract.plan import FeaturePlan
from skewless.contract.status import BoolArray, Int64Array
from skewless.contract.vector import Assembler, Matrix, Vocabularies
from skewless.training.decision import SliceColumn
from skewless.training.mode_gap import ModeGap
from skewless.training.row_source import RowSource
from skewless.training.stored_matrix import AnyMatrix, StoredMatrix, read_batches, select_rows
from skewless.training.trainers.port import AnyTrainingSet, LabelledRows
from skewless.validation.evaluation.interval import effective_size


@dataclass(frozen=True, kw_only=True)
class TrainingData(ABC):
    """Rows in the order of their prediction times; every array has shape ``(n, ...)``.

    Args:
        matrix: the vectors, float64, shape ``(n, n_features)``, equal to the server's.
        labels: float64.
        weights: float64.
        t: prediction times, microseconds.
        known: known time of each label, microseconds.
        train, validation, test: masks of the rows of each split; embargoed rows are in none.
        counts: rows of the label table by their use.
        status: per view, rows by status.
        gap: difference of the time modes on the test rows; None without windowed views.
        groups: query of each row, numbered by first appearance; None unless the task is ranking.
        slices: the columns of ``ModelSpec.slices``.
        source: reads the rows again with another plan; None: that is impossible.
        as_of_us: the time as of which the rows were selected; None: the time of the training.
    """

    plan: FeaturePlan
    names: tuple[str, ...]
    vocabularies: Vocabularies
    matrix: AnyMatrix
    labels: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    t: Int64Array
    known: Int64Array
    train: BoolArray
    validation: BoolArray
    test: BoolArray
    counts: Mapping[str, int]
    status: Mapping[str, Mapping[str, int]]
    gap: ModeGap | None = None
    groups: Int64Array | None = None
    slices: Mapping[str, SliceColumn] = field(default_factory=dict)
    source: RowSource | None = field(default=None, repr=False)
    as_of_us: int | None = None

    @abstractmethod
    def test_batches(self, assembler: Assembler, labels: AnyLabels) -> Iterator[Matrix]:
        """Yield the vectors of the test rows by the pinned plan of another model, in the same order.

        Args:
            labels: label source of the other model, which names its keys and request fields.

        Raises:
            SourceError: the label table lacks a key or request field of the other model.
            StoreError: the log of one of its views is missing.
        """

    @property
    def is_stored(self) -> bool:
        """Return whether the features are in the storage, and not in memory."""
        return isinstance(self.matrix, StoredMatrix)

    def select(self, mask: BoolArray) -> AnyMatrix:
        """Return the vectors of the rows of a mask."""
        return select_rows(self.matrix, mask)

    def take(self, rows: npt.NDArray[np.intp]) -> Matrix:
        """Return the vectors of a few rows, by their numbers."""
        selected = select_rows(self.matrix, rows.astype(np.int64))
        return selected.read(0, len(rows)) if isinstance(selected, StoredMatrix) else selected

    @property
    def fingerprint(self) -> str:
        """Return a digest of the data: rows, labels, times and values, to the last bit."""
        # The bytes and not the numbers: NaN and -0.0 count as they are.
        total = hashlib.sha256(json.dumps(list(self.names)).encode())
        for array in (self.labels, self.weights, self.t, self.known):
            total.update(np.ascontiguousarray(array).data)
        for batch in read_batches(self.matrix):
            total.update(np.ascontiguousarray(batch).data)
        if self.groups is not None:
            total.update(np.ascontiguousarray(self.groups).data)
        return total.hexdigest()

    @property
    def weight_summary(self) -> dict[str, dict[str, float]]:
        """Return number, effective number and largest weight of training and test rows; empty if all weights are 1."""
        if (self.weights == 1.0).all():
            return {}
        masks = {"train": self.train, "test": self.test}
        return {
            name: {
                "rows": int(mask.sum()),
                "effective": effective_size(self.weights[mask]),
                "largest": float(self.weights[mask].max(initial=0.0)),
            }
            for name, mask in masks.items()
        }

    def training_rows(self, mask: BoolArray) -> AnyTrainingSet:
        """Return the rows of a mask as the input of a trainer."""
        return LabelledRows(
            matrix=self.select(mask),
            labels=self.labels[mask],
            feature_names=self.names,
            categorical=tuple(i for i, name in enumerate(self.names) if name in self.vocabularies),
            weights=self.weights[mask],
            groups=None if self.groups is None else self.groups[mask],
        )

    def table(self) -> pa.Table:
        """Return the data as Arrow, in memory: features by name, ``label``, ``t`` and ``split``."""
        matrix = np.concatenate(list(read_batches(self.matrix)))
        columns = {name: matrix[:, i] for i, name in enumerate(self.names)}
        masks = [self.train, self.validation, self.test]
        split = np.select(masks, ["train", "validation", "test"], "embargo")
        return pa.table({**columns, "label": self.labels, "t": self.t, "split": split})
