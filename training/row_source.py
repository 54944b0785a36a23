"""Reads the label rows of a training set again with another plan, to compare versions of different plans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from skewless.contract.errors import SourceError, StoreError
from skewless.contract.labels import AnyLabels, Outcomes
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.contract.status import Int64Array
from skewless.contract.vector import Assembler, Matrix
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.labels import (
    LABEL,
    entity_rows,
    find_known_labels,
    find_servable,
    label_source,
    request_arrays,
    select_columns,
    stream_labels,
)
from skewless.infra.reads.offline.views import OfflineViews

if TYPE_CHECKING:
    import duckdb

_SEARCH_BYTES = 256_000_000  # of the vectors of one search


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

    def batches(
        self, assembler: Assembler, labels: AnyLabels, t: Int64Array, expected: npt.NDArray[np.float64]
    ) -> Iterator[Matrix]:
        """Yield the other model's vectors of the last rows of the dataset, each of shape ``(rows, n_features)``.

        Its views are read from the log, in the time mode of the dataset.

        Args:
            labels: label source of the other model; names its keys and request fields if the spec does not.
            t: prediction times of the rows: all rows between the first and the last.
            expected: their labels.

        Raises:
            SourceError: the label table lacks a key or request field, or has changed.
            StoreError: the log of a view is missing.
        """
        plan, done = assembler.plan, 0
        for rows in self._rows(plan, labels, int(t[0]), int(t[-1])):
            part = slice(done, done + rows.num_rows)
            done += rows.num_rows
            # The label table may have been rewritten since. Versions are compared on the same rows or not at all
            # (SEMANTICS 6.4).
            both = ((TIME, t), (LABEL, expected))
            self._check_equal(all(np.array_equal(rows[name].to_numpy(), each[part]) for name, each in both))
            own_rows = select_columns(plan, rows)
            self._check_request_fields(plan, own_rows)
            self._check_logs(plan)
            reads = self.views.read(plan, entity_rows(plan, own_rows), self.spec.time_mode)
            yield assembler.assemble(t[part], reads, request_arrays(plan.request, own_rows)).matrix
        self._check_equal(done == len(t))

    def _check_equal(self, is_equal: bool) -> None:  # noqa: FBT001 - a check of a condition
        if not is_equal:
            raise SourceError(
                f"label table of model {self.spec.name!r}", "has changed since it was read", fix="run the command again"
            )

    def _rows(self, plan: FeaturePlan, labels: AnyLabels, first: int, last: int) -> Iterator[pa.Table]:
        """Yield the rows of the dataset in the columns of both plans, many at a time: each read searches the log."""
        # The other model's label source names keys that were renamed since.
        own, others = label_source(self.spec), {} if isinstance(labels, Outcomes) else labels.columns
        labels_of_both = replace(own, columns={**others, **own.columns})
        spec, pending = replace(self.spec, labels=labels_of_both), []
        for rows in stream_labels(self.connection, self.repo, self.plan, spec, between=(first, last), other=plan):
            # The filters of the dataset, not of the other plan: its rows must be the same.
            is_used = find_known_labels(rows, self.now_us) & find_servable(self.plan.request, rows)
            pending.append(rows.filter(pa.array(is_used)))
            if sum(each.num_rows for each in pending) * 8 * len(plan.services[0].features) >= _SEARCH_BYTES:
                yield pa.concat_tables(pending)
                pending = []
        if pending:
            yield pa.concat_tables(pending)

    def _check_request_fields(self, plan: FeaturePlan, rows: pa.Table) -> None:
        rejected = int((~find_servable(plan.request, rows)).sum())
        if rejected:
            raise SourceError(
                f"label table of model {self.spec.name!r}",
                "has test rows with a null request field, which its server would reject",
                value=rejected,
                fix="train it again with the applied plan",
            )

    def _check_logs(self, plan: FeaturePlan) -> None:
        # Without its log a view would be all null, and its version would lose the comparison for that alone.
        files = {view.name: self.views.log(view).files() for view in plan.views}
        files |= {
            view.name: [file for part in self.views.log_partitions(view) for file in part.files]
            for view in plan.windows
        }
        for name in (name for name, log_files in files.items() if not log_files):
            raise StoreError(f"log of view {name!r}", "has no row", fix="restore the state folder from a backup")
