"""The label rows of a training set, read again as another plan sees them: so versions of different plans compare."""

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
from skewless.infra.offline.labels import LABEL, askable, columns_of, entity_rows, known_by, read_labels, request_arrays
from skewless.infra.offline.views import OfflineViews

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, kw_only=True)
class RowSource:
    """Where the rows of a dataset come from: label table and accepted log.

    Args:
        plan: the pinned plan of the dataset.
        now_us: what was known by then counts.
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
        """Return the last rows of the dataset as another model sees them, shape ``(n, n_features)``.

        Its own views are read from the log, in the time mode of the dataset.

        Args:
            labels: of the other model: names its keys and request fields where the spec does not.
            t: the rows' prediction times, without gaps: all rows between the first and the last.
            expected: their labels.

        Raises:
            SourceError: the label table lacks a key or request field, or has changed.
            StoreError: the log of a view is gone.
        """
        plan = assembler.plan
        rows = self._rows(plan, labels, int(t[0]), int(t[-1]))
        if not (_equal(rows, TIME, t) and _equal(rows, LABEL, expected)):
            raise SourceError(
                f"label table of model {self.spec.name!r}", "has changed since it was read", fix="run the command again"
            )
        own = columns_of(plan, rows)
        self._refuse_unasked(plan, own)
        for view in plan.all_views:
            self._refuse_lost(plan, view.name)
        reads = self.views.read(plan, entity_rows(plan, own), self.spec.time_mode)
        return assembler.assemble(t, reads, request_arrays(plan.request, own)).matrix

    def _rows(self, plan: FeaturePlan, labels: LabelSource, first: int, last: int) -> pa.Table:
        # A key that was renamed since is named by the label source of its time.
        both = replace(self.spec.labels, columns={**labels.columns, **self.spec.labels.columns})
        spec = replace(self.spec, labels=both)
        rows = read_labels(self.connection, self.repo, self.plan, spec, between=(first, last), other=plan)
        return rows.filter(pa.array(known_by(rows, self.now_us) & askable(self.plan.request, rows)))

    def _refuse_unasked(self, plan: FeaturePlan, rows: pa.Table) -> None:
        unasked = int((~askable(plan.request, rows)).sum())
        if unasked:
            raise SourceError(
                f"label table of model {self.spec.name!r}",
                "has test rows with a null request field, which its server would refuse",
                value=unasked,
                fix="train it again under the plan in force",
            )

    def _refuse_lost(self, plan: FeaturePlan, name: str) -> None:
        latest = {view.name: view for view in plan.views}
        if name in latest:
            files = self.views.log(latest[name]).files()
        else:
            files = [file for part in self.views.log_parts(plan.window(name)) for file in part.files]
        if not files:
            raise StoreError(f"log of view {name!r}", "has no row", fix="restore the state folder from a backup")


def _equal(rows: pa.Table, name: str, values: npt.NDArray[np.int64] | npt.NDArray[np.float64]) -> bool:
    return bool(np.array_equal(rows[name].to_numpy(), values))
