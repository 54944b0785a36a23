"""The training set of a model: label rows joined with what each view held when they would have been asked."""

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
    askable,
    entity_rows,
    known_by,
    read_labels,
    request_arrays,
)
from skewless.infra.offline.views import OfflineViews
from skewless.training.mode_gap import ModeGap, mode_gap
from skewless.training.row_source import RowSource
from skewless.training.slices import SliceColumn
from skewless.training.trainers.port import TrainingSet

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Rows in the order of their prediction times; every array has shape ``(n, ...)``.

    Args:
        matrix: float64, shape ``(n, n_features)``, as the server would build it.
        labels: float64.
        weights: float64.
        t: prediction times, microseconds.
        known: when each label became known, microseconds.
        train, validation, test: which rows are which; embargoed rows are none of them.
        counts: rows of the label table by what became of them.
        status: per view, rows by status.
        fingerprint: digest of everything above.
        gap: how the time modes differ on the test rows; None without windowed views.
        groups: which rows are of one query, numbered as they first appear; None unless ranking.
        slices: the columns of ``ModelSpec.slices``.
        source: reads the rows again, as another plan sees them; None: they can only be seen by this plan.
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
        """Return the test rows as another model sees them, by its own plan, in their order.

        Args:
            labels: the label table that the other model was trained on: it names its keys and request fields.

        Raises:
            SourceError: the label table lacks a key or request field of the other model.
            StoreError: the log of one of its views is gone.
        """
        if self._covers(assembler.plan):
            return assembler.assemble(self.t, self.reads, self.request).matrix[self.test]
        if self.source is None:
            raise StoreError("training set", "has no log to read other views from", fix="build it again from the log")
        return self.source.matrix(assembler, labels, self.t[self.test], self.labels[self.test])

    def _covers(self, plan: FeaturePlan) -> bool:
        """Say whether all that a plan needs was read for this dataset."""
        here = {view.name: view.hash for view in self.plan.all_views}
        return {view.name: view.hash for view in plan.all_views}.items() <= here.items() and set(plan.request) <= set(
            self.plan.request
        )

    @property
    def fingerprint(self) -> str:
        """Return the identity of the data: rows, labels, times and values, to the last bit."""
        total = hashlib.sha256(json.dumps(list(self.names)).encode())
        groups = [] if self.groups is None else [self.groups]
        for array in (self.labels, self.weights, self.t, self.known, self.matrix, *groups):
            total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()

    def training_rows(self, chosen: BoolArray) -> TrainingSet:
        """Return some rows as a trainer takes them."""
        return TrainingSet(
            matrix=np.ascontiguousarray(self.matrix[chosen]),
            labels=self.labels[chosen],
            feature_names=self.names,
            categorical=tuple(i for i, name in enumerate(self.names) if name in self.vocabularies),
            weights=self.weights[chosen],
            groups=None if self.groups is None else self.groups[chosen],
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
    """Return the training set of a model as it could have been built at a moment.

    Raises:
        SourceError: no label row is usable, or one side of the split is empty.
        DefinitionError: the spec's group or slices name no key or request field.
    """
    pinned = plan.only(spec.service)
    everything = read_labels(connection, repo, pinned, spec)
    known, served = known_by(everything, now_us), askable(pinned.request, everything)
    rows = everything.filter(pa.array(known & served))
    counts = {
        "rows": everything.num_rows,
        "without_label": everything[LABEL].null_count,
        "not_yet_known": int((~known).sum()) - everything[LABEL].null_count,
        "not_askable": int((known & ~served).sum()),
        "used": rows.num_rows,
        "contradicting": _contradicting(rows),
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
    gap = mode_gap(pinned, views, entities.filter(pa.array(dataset.test)))
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
    _refuse_empty(spec, train, test)
    vocabularies = Assembler(plan, {}).words(t, reads, request, train)
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
        groups=None if spec.group is None else _slice(spec, "group", spec.group, rows).codes,
        slices={name: _slice(spec, "slices", name, rows) for name in spec.slices},
    )


def _contradicting(rows: pa.Table) -> int:
    """Return how many rows have the keys, request fields and time of another, and not its label."""
    same = [name for name in rows.column_names if name not in {LABEL, KNOWN, WEIGHT}]
    groups = rows.group_by(same).aggregate([(LABEL, "min"), (LABEL, "max"), (LABEL, "count")])
    different = pc.not_equal(groups[f"{LABEL}_min"], groups[f"{LABEL}_max"])
    return int(pc.sum(groups.filter(different)[f"{LABEL}_count"]).as_py() or 0)


def _slice(spec: ModelSpec, what: str, name: str, rows: pa.Table) -> SliceColumn:
    known = [column for column in rows.column_names if not column.startswith("__")]
    if name not in known:
        raise DefinitionError(
            f"model {spec.name!r} {what}",
            "names no key or request field of its service",
            value=name,
            fix=f"use one of {', '.join(known)}",
        )
    return SliceColumn.of(rows[name])


def split_rows(
    spec: ModelSpec, t: Int64Array, known: Int64Array, now_us: int
) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Return which rows train, which validate (for early stopping) and which test.

    ::

        -- train --|-- validation --|-- embargo --|-- test --| now or the last row
                                                  start

    Rows that train or validate have a label that was known at ``start``.

    The test period ends with the last row or now, whichever is first.
    """
    split = spec.as_dict()["split"]
    end = min(int(t.max()), now_us)
    start = end - split["test"]
    fit_end = start - split["embargo"]
    train_end = fit_end - split["validation"]
    in_time = known <= start
    return (t <= train_end) & in_time, (t > train_end) & (t <= fit_end) & in_time, t > start


def _refuse_empty(spec: ModelSpec, train: BoolArray, test: BoolArray) -> None:
    for name, chosen in (("train", train), ("test", test)):
        if not chosen.any():
            raise SourceError(
                f"label table of model {spec.name!r}",
                f"leaves no row to {name}",
                value=str(spec.split),
                fix="shorten the split's periods, or add labels",
            )
