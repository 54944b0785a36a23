"""Reads the label rows of a training set again with another plan, to compare versions of different plans."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.errors import SourceError, StoreError
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import LabelSource, ModelSpec
from skewless.contract.status import Int64Array
from skewless.contract.vector import Assembler, Matrix
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.labels import (
    LABEL,
    entity_rows,
    find_known_labels,
    find_servable,
    read_labels,
    request_arrays,
    select_columns,
)
from skewless.infra.offline.views import OfflineViews

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, kw_only=True)
class RowSource:
    """The source of a dataset's rows: label table and accepted log.

    Args:
        plan: the pinned plan of the dataset.
        now_us: labels that became known later do not count.
    """

    connection: duckdb.DuckDBPyConnection
    repo: Path
    plan: FeaturePlan
    spec: ModelSpec
    views: OfflineViews
    now_us: int

    def matrix(
        self, assembler: Assembler, labels: LabelSource, t: Int64Array, expected: npt.NDArray[np.float64]
    ) -> Matrix:
        """Return the other model's vectors of the last rows of the dataset, shape ``(n, n_features)``.

        Its views are read from the log, in the time mode of the dataset.

        Args:
            labels: label source of the other model; names its keys and request fields if the spec does not.
            t: prediction times of the rows: all rows between the first and the last.
            expected: their labels.

        Raises:
            SourceError: the label table lacks a key or request field, or has changed.
            StoreError: the log of a view is missing.
        """
        plan = assembler.plan
        rows = self._rows(plan, labels, int(t[0]), int(t[-1]))
        # The label table may have been rewritten since. Versions are compared on the same rows or not at all (SEMANTICS
        # 6.4).
        if not all(np.array_equal(rows[name].to_numpy(), each) for name, each in ((TIME, t), (LABEL, expected))):
            raise SourceError(
                f"label table of model {self.spec.name!r}", "has changed since it was read", fix="run the command again"
            )
        own_rows = select_columns(plan, rows)
        self._check_request_fields(plan, own_rows)
        # Without its log a view would be all null, and its version would lose the comparison for that alone.
        files = {view.name: self.views.log(view).files() for view in plan.views}
        files |= {
            view.name: [file for part in self.views.log_partitions(view) for file in part.files]
            for view in plan.windows
        }
        for name in (name for name, log_files in files.items() if not log_files):
            raise StoreError(f"log of view {name!r}", "has no row", fix="restore the state folder from a backup")
        reads = self.views.read(plan, entity_rows(plan, own_rows), self.spec.time_mode)
        return assembler.assemble(t, reads, request_arrays(plan.request, own_rows)).matrix

    def _rows(self, plan: FeaturePlan, labels: LabelSource, first: int, last: int) -> pa.Table:
        # The other model's label source names keys that were renamed since.
        labels_of_both = replace(self.spec.labels, columns={**labels.columns, **self.spec.labels.columns})
        spec = replace(self.spec, labels=labels_of_both)
        rows = read_labels(self.connection, self.repo, self.plan, spec, between=(first, last), other=plan)
        # The filters of the dataset, not of the other plan: its rows must be the same.
        return rows.filter(pa.array(find_known_labels(rows, self.now_us) & find_servable(self.plan.request, rows)))

    def _check_request_fields(self, plan: FeaturePlan, rows: pa.Table) -> None:
        rejected = int((~find_servable(plan.request, rows)).sum())
        if rejected:
            raise SourceError(
                f"label table of model {self.spec.name!r}",
                "has test rows with a null request field, which its server would reject",
                value=rejected,
                fix="train it again with the applied plan",
            )
