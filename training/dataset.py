"""Builds the training set of a model: a point-in-time join of label rows with the feature views."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from skewless.contract.errors import DefinitionError, SourceError, StoreError
from skewless.contract.plan import FeaturePlan
from skewless.contract.rows import ViewRead
from skewless.contract.spec import LabelSource, ModelSpec
from skewless.contract.status import BoolArray, Int64Array, count_statuses
from skewless.contract.vector import Assembler, Matrix, Vocabularies
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.labels import (
    KNOWN,
    LABEL,
    WEIGHT,
    entity_rows,
    find_known_labels,
    find_servable,
    read_labels,
    request_arrays,
)
from skewless.infra.offline.views import OfflineViews
from skewless.training.decision import SliceColumn
from skewless.training.mode_gap import ModeGap, measure_mode_gap
from skewless.training.row_source import RowSource
from skewless.training.trainers.port import TrainingSet

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Rows in the order of their prediction times; every array has shape ``(n, ...)``.

    Args:
        matrix: float64, shape ``(n, n_features)``, equal to the server's vectors.
        labels: float64.
        weights: float64.
        t: prediction times, microseconds.
        known: known time of each label, microseconds.
        train, validation, test: masks of the rows of each split; embargoed rows are in none.
        counts: rows of the label table by their use.
        status: per view, rows by status.
        fingerprint: digest of the data.
        gap: difference of the time modes on the test rows; None without windowed views.
        groups: query of each row, numbered by first appearance; None unless the task is ranking.
        slices: the columns of ``ModelSpec.slices``.
        source: reads the rows again with another plan; None: that is impossible.
    """

    plan: FeaturePlan
    names: tuple[str, ...]
    vocabularies: Vocabularies
    matrix: Matrix
    labels: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    t: Int64Array
    known: Int64Array
    train: BoolArray
    validation: BoolArray
    test: BoolArray
    counts: Mapping[str, int]
    status: Mapping[str, Mapping[str, int]]
    reads: Mapping[str, ViewRead] = field(repr=False)
    request: Mapping[str, npt.NDArray[Any]] = field(repr=False)
    gap: ModeGap | None = None
    groups: Int64Array | None = None
    slices: Mapping[str, SliceColumn] = field(default_factory=dict)
    source: RowSource | None = field(default=None, repr=False)

    def test_matrix(self, assembler: Assembler, labels: LabelSource) -> Matrix:
        """Return the vectors of the test rows by the pinned plan of another model, in the same order.

        Args:
            labels: label source of the other model, which names its keys and request fields.

        Raises:
            SourceError: the label table lacks a key or request field of the other model.
            StoreError: the log of one of its views is missing.
        """
        if self._covers(assembler.plan):
            # Views of equal hash have equal rows, so the log is not read again.
            return assembler.assemble(self.t, self.reads, self.request).matrix[self.test]
        if self.source is None:
            raise StoreError("training set", "has no log for other views", fix="build it again from the log")
        return self.source.matrix(assembler, labels, self.t[self.test], self.labels[self.test])

    def _covers(self, plan: FeaturePlan) -> bool:
        """Return whether the dataset has all views and request fields of a plan."""
        own = {view.name: view.hash for view in self.plan.all_views}
        return {view.name: view.hash for view in plan.all_views}.items() <= own.items() and set(plan.request) <= set(
            self.plan.request
        )

    @property
    def fingerprint(self) -> str:
        """Return a digest of the data: rows, labels, times and values, to the last bit."""
        # The bytes and not the numbers: NaN and -0.0 count as they are.
        total = hashlib.sha256(json.dumps(list(self.names)).encode())
        groups = [] if self.groups is None else [self.groups]
        for array in (self.labels, self.weights, self.t, self.known, self.matrix, *groups):
            total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()

    def training_rows(self, mask: BoolArray) -> TrainingSet:
        """Return the rows of a mask as the input of a trainer."""
        return TrainingSet(
            matrix=np.ascontiguousarray(self.matrix[mask]),
            labels=self.labels[mask],
            feature_names=self.names,
            categorical=tuple(i for i, name in enumerate(self.names) if name in self.vocabularies),
            weights=self.weights[mask],
            groups=None if self.groups is None else self.groups[mask],
        )

    def table(self) -> pa.Table:
        """Return the dataset as Arrow: features by name, ``label``, ``t`` and ``split``."""
        columns = {name: self.matrix[:, i] for i, name in enumerate(self.names)}
        masks = [self.train, self.validation, self.test]
        split = np.select(masks, ["train", "validation", "test"], "embargo")
        return pa.table({**columns, "label": self.labels, "t": self.t, "split": split})


def build_dataset(
    *,
    connection: duckdb.DuckDBPyConnection,
    repo: Path,
    plan: FeaturePlan,
    spec: ModelSpec,
    views: OfflineViews,
    now_us: int,
) -> Dataset:
    """Return the training set of a model as it could have been built at ``now_us``.

    Raises:
        SourceError: no label row is usable, the training or test rows are empty, or a view has never been filled.
        DefinitionError: the spec's group or a slice is not a key or request field.
    """
    pinned = plan.select_service(spec.service)
    views.check_filled(pinned)
    label_rows = read_labels(connection, repo, pinned, spec)
    is_known, is_valid = find_known_labels(label_rows, now_us), find_servable(pinned.request, label_rows)
    rows = label_rows.filter(pa.array(is_known & is_valid))
    counts = {
        "rows": label_rows.num_rows,
        "without_label": label_rows[LABEL].null_count,
        # A row without a label is not known either; it is counted above.
        "not_yet_known": int((~is_known).sum()) - label_rows[LABEL].null_count,
        "not_askable": int((is_known & ~is_valid).sum()),
        "used": rows.num_rows,
        "contradicting": _count_contradictions(rows),
    }
    if not rows.num_rows:
        raise SourceError(
            f"label table of model {spec.name!r}",
            "has no usable row",
            value=counts,
            fix="add labels, or move the clock",
        )
    entities = entity_rows(pinned, rows)
    dataset = _assemble(pinned, spec, rows, views.read(pinned, entities, spec.time_mode), counts, now_us)
    source = RowSource(connection=connection, repo=repo, plan=pinned, spec=spec, views=views, now_us=now_us)
    gap = measure_mode_gap(pinned, views, entities.filter(pa.array(dataset.test)))
    return replace(dataset, gap=gap, source=source)


def _assemble(
    plan: FeaturePlan,
    spec: ModelSpec,
    rows: pa.Table,
    reads: Mapping[str, ViewRead],
    counts: Mapping[str, int],
    now_us: int,
) -> Dataset:
    t = rows[TIME].to_numpy().astype(np.int64)
    known = rows[KNOWN].to_numpy().astype(np.int64)
    request = request_arrays(plan.request, rows)
    train, validation, test = split_rows(spec, t, known, now_us)
    _check_not_empty(spec, train, test)
    # Vocabularies come from training rows only, so that test rows can have unknown words, as live requests do.
    vocabularies = Assembler(plan, {}).collect_vocabularies(t, reads, request, train)
    assembler = Assembler(plan, vocabularies)
    vectors = assembler.assemble(t, reads, request)
    return Dataset(
        plan=plan,
        names=assembler.labels,
        vocabularies=vocabularies,
        matrix=vectors.matrix,
        labels=rows[LABEL].to_numpy().astype(np.float64),
        weights=rows[WEIGHT].to_numpy().astype(np.float64),
        t=t,
        known=known,
        train=train,
        validation=validation,
        test=test,
        counts=counts,
        status={name: count_statuses(status) for name, status in vectors.status.items()},
        reads=reads,
        request=request,
        groups=None if spec.group is None else _slice_column(spec, "group", spec.group, rows).codes,
        slices={name: _slice_column(spec, "slices", name, rows) for name in spec.slices},
    )


def _count_contradictions(rows: pa.Table) -> int:
    """Return the number of rows that share keys, request fields and time with a row of another label."""
    columns = [name for name in rows.column_names if name not in {LABEL, KNOWN, WEIGHT}]
    groups = rows.group_by(columns).aggregate([(LABEL, "min"), (LABEL, "max"), (LABEL, "count")])
    is_different = pc.not_equal(groups[f"{LABEL}_min"], groups[f"{LABEL}_max"])
    return int(pc.sum(groups.filter(is_different)[f"{LABEL}_count"]).as_py() or 0)


def _slice_column(spec: ModelSpec, field_name: str, name: str, rows: pa.Table) -> SliceColumn:
    columns = [column for column in rows.column_names if not column.startswith("__")]
    if name not in columns:
        raise DefinitionError(
            f"model {spec.name!r} {field_name}",
            "is not a key or request field of its service",
            value=name,
            fix=f"use one of {', '.join(columns)}",
        )
    return SliceColumn.of(rows[name])


def split_rows(
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
