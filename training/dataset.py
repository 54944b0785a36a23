"""A training set in memory: a point-in-time join of label rows with the feature views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.errors import DefinitionError, SourceError, StoreError
from skewless.contract.labels import AnyLabels
from skewless.contract.plan import FeaturePlan
from skewless.contract.rows import ViewRead
from skewless.contract.spec import ModelSpec
from skewless.contract.status import BoolArray, Int64Array, count_statuses
from skewless.contract.vector import Assembler, Matrix
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.labels import (
    KNOWN,
    LABEL,
    PREDICTION,
    WEIGHT,
    find_known_labels,
    find_servable,
    request_arrays,
)
from skewless.training.decision import SliceColumn
from skewless.training.logged_vectors import LoggedVectors
from skewless.training.training_data import TrainingData

ReadColumn = Callable[[str], pa.ChunkedArray]


@dataclass(frozen=True, kw_only=True)
class Dataset(TrainingData):
    """A training set in memory.

    Args:
        reads: per view, its read for the rows.
        request: per request field, its values.
        logged: vectors that replace the recomputed ones.
    """

    matrix: Matrix
    reads: Mapping[str, ViewRead] = field(repr=False)
    request: Mapping[str, npt.NDArray[Any]] = field(repr=False)
    logged: LoggedVectors | None = field(default=None, repr=False)

    def test_batches(self, assembler: Assembler, labels: AnyLabels) -> Iterator[Matrix]:
        """Yield the vectors of the test rows by the pinned plan of another model; see ``TrainingData``."""
        if self._covers(assembler.plan):
            # Views of equal hash have equal rows, so the log is not read again.
            matrix = assembler.assemble(self.t, self.reads, self.request).matrix
            if self.logged is not None:
                self.logged.replace_in(matrix, assembler)
            yield matrix[self.test]
        elif self.source is None:
            raise StoreError("training set", "has no log for other views", fix="build it again from the log")
        else:
            yield from self.source.batches(assembler, labels, self.t[self.test], self.labels[self.test])

    def _covers(self, plan: FeaturePlan) -> bool:
        """Return whether the dataset has all views and request fields of a plan."""
        own = {view.name: view.hash for view in self.plan.all_views}
        return {view.name: view.hash for view in plan.all_views}.items() <= own.items() and set(plan.request) <= set(
            self.plan.request
        )


def assemble_dataset(
    plan: FeaturePlan,
    spec: ModelSpec,
    rows: pa.Table,
    reads: Mapping[str, ViewRead],
    counts: Mapping[str, int],
    now_us: int,
    logged: LoggedVectors | None,
) -> Dataset:
    """Return the training set of some label rows, as of ``now_us``; without the gap between the time modes.

    Args:
        rows: the usable label rows.
        reads: per view, its read for them.
        counts: numbers of label rows by their use.
        logged: as of ``Dataset``.

    Raises:
        SourceError: the training or test rows are empty.
        DefinitionError: the spec's group or a slice is not a key or request field.
    """
    fields = read_label_fields(spec, rows.column_names, rows.column, now_us)
    request = request_arrays(plan.request, rows)
    # Vocabularies come from training rows only, so that test rows can have unknown words, as live requests do.
    vocabularies = Assembler(plan, {}).collect_vocabularies(fields["t"], reads, request, fields["train"])
    assembler = Assembler(plan, vocabularies)
    vectors = assembler.assemble(fields["t"], reads, request)
    if logged is not None:
        different = logged.replace_in(vectors.matrix, assembler)
        counts = {**counts, "logged_vectors": len(logged.rows), "different_vectors": different}
    return Dataset(
        plan=plan,
        names=assembler.labels,
        vocabularies=vocabularies,
        matrix=vectors.matrix,
        counts=counts,
        status={name: count_statuses(status) for name, status in vectors.status.items()},
        reads=reads,
        request=request,
        logged=logged,
        **fields,
    )


def select_usable(plan: FeaturePlan, label_rows: pa.Table, now_us: int) -> tuple[pa.Table, dict[str, int]]:
    """Return the label rows that can be used at a time, and the number of rows by their use."""
    is_known, is_valid = find_known_labels(label_rows, now_us), find_servable(plan.request, label_rows)
    rows = label_rows.filter(pa.array(is_known & is_valid))
    return rows, {
        "rows": label_rows.num_rows,
        "without_label": label_rows[LABEL].null_count,
        # A row without a label is not known either; it is counted above.
        "not_yet_known": int((~is_known).sum()) - label_rows[LABEL].null_count,
        "not_askable": int((is_known & ~is_valid).sum()),
        "used": rows.num_rows,
    }


def check_usable(spec: ModelSpec, counts: Mapping[str, int]) -> None:
    """Check that a label row can be used.

    Raises:
        SourceError: there is none.
    """
    if not counts["used"]:
        raise SourceError(
            f"label table of model {spec.name!r}",
            "has no usable row",
            value=dict(counts),
            fix="add labels, or move the clock",
        )


def count_contradictions(rows: pa.Table) -> int:
    """Return the number of rows that share keys, request fields and time with a row of another label."""
    columns = [name for name in rows.column_names if name not in {LABEL, KNOWN, WEIGHT, PREDICTION}]
    groups = rows.group_by(columns).aggregate([(LABEL, "min"), (LABEL, "max"), (LABEL, "count")])
    is_different = pc.not_equal(groups[f"{LABEL}_min"], groups[f"{LABEL}_max"])
    return int(pc.sum(groups.filter(is_different)[f"{LABEL}_count"]).as_py() or 0)


def read_label_fields(spec: ModelSpec, names: Sequence[str], read: ReadColumn, now_us: int) -> dict[str, Any]:
    """Return the fields of ``TrainingData`` that come from the label rows alone.

    Args:
        names: columns of the label rows.
        read: returns a column.
        now_us: the time of the training.

    Raises:
        SourceError: the training or test rows are empty.
        DefinitionError: the spec's group or a slice is not a key or request field.
    """
    t, known = (np.asarray(read(name).to_numpy(), np.int64) for name in (TIME, KNOWN))
    train, validation, test = _split_rows(spec, t, known, now_us)
    _check_not_empty(spec, train, test)
    return {
        "t": t,
        "known": known,
        "train": train,
        "validation": validation,
        "test": test,
        "labels": np.asarray(read(LABEL).to_numpy(), np.float64),
        "weights": np.asarray(read(WEIGHT).to_numpy(), np.float64),
        "groups": None if spec.group is None else _slice_column(spec, "group", spec.group, names, read).codes,
        "slices": {name: _slice_column(spec, "slices", name, names, read) for name in spec.slices},
    }


def _slice_column(spec: ModelSpec, field_name: str, name: str, names: Sequence[str], read: ReadColumn) -> SliceColumn:
    columns = [column for column in names if not column.startswith("__")]
    if name not in columns:
        raise DefinitionError(
            f"model {spec.name!r} {field_name}",
            "is not a key or request field of its service",
            value=name,
            fix=f"use one of {', '.join(columns)}",
        )
    return SliceColumn.of(read(name))


def _split_rows(
    spec: ModelSpec, t: Int64Array, known: Int64Array, now_us: int
) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Return the masks of training, validation (for early stopping) and test rows.

    ::

        -- train --|-- validation --|-- embargo --|-- test --| now or the last row
                                                  start

    The labels of training and validation rows were known at ``start``. The test period ends at the last row or now,
    whichever is first.
    """
    split = spec.as_dict()["split"]
    # A label row of the future must not move the periods past now.
    end = min(int(t.max()), now_us)
    start = end - split["test"]
    fit_end = start - split["embargo"]
    train_end = fit_end - split["validation"]
    # Labels that became known after the start of the test period would leak its future into training.
    was_known = known <= start
    return (t <= train_end) & was_known, (t > train_end) & (t <= fit_end) & was_known, t > start


def _check_not_empty(spec: ModelSpec, train: BoolArray, test: BoolArray) -> None:
    for name, mask in (("train", train), ("test", test)):
        if not mask.any():
            raise SourceError(
                f"label table of model {spec.name!r}",
                f"has no row in the {name} period",
                value=str(spec.split),
                fix="shorten the split's periods, or add labels",
            )
