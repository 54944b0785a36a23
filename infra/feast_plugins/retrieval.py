"""The retrieval job, from which users of Feast get a result."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast import OnDemandFeatureView
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage, ValidationReference

from skewless.infra.feast_plugins.saved_rows import save_rows

_EXACT = 2**53  # greatest integer up to which float64 is exact
_BATCH_ROWS = 100_000


@dataclass(kw_only=True, eq=False)
class SkewlessRetrievalJob(RetrievalJob):
    """A lazy result: each read computes it again.

    Args:
        full_feature_names: whether feature names have the view as prefix.
        on_demand: views that Feast computes from the result.
    """

    config: RepoConfig
    full_feature_names: bool = False
    on_demand: list[OnDemandFeatureView] = field(default_factory=list)

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Return the on-demand views."""
        return self.on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Return None: a plain query has no entity rows."""
        return None

    @abstractmethod
    def batches(self, rows: int) -> Iterator[pa.Table]:
        """Yield the result in order, in tables of about ``rows`` rows; at least one table, which may be empty."""

    def to_arrow(self, validation_reference: ValidationReference | None = None, timeout: int | None = None) -> pa.Table:
        """Return the result as one Arrow table; its columns follow the request.

        Raises:
            SkewlessError: a source, a key or a name is invalid.
        """
        return self.order_columns(super().to_arrow(validation_reference, timeout))

    def to_df(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> pd.DataFrame:
        """Return the result as a data frame.

        An integer column with nulls becomes float64, as usual in pandas, unless this would change a value: then it
        becomes ``Int64``.
        """
        return _exact_frame(self.to_arrow(validation_reference, timeout))

    def to_reader(self, batch_rows: int = _BATCH_ROWS) -> pa.RecordBatchReader:
        """Return the result as a stream of record batches, for results larger than memory.

        On-demand features are computed batch by batch.
        """
        tables = (self._add_on_demand(table) for table in self.batches(batch_rows))
        first = next(tables)
        # On-demand features come from pandas, which infers another type for a batch of nulls.
        rest = (batch for table in tables for batch in table.cast(first.schema).to_batches())
        return pa.RecordBatchReader.from_batches(first.schema, chain(first.to_batches(), rest))

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        timeout: int | None = None,  # noqa: ARG002 - Feast's signature
    ) -> None:
        """Write the result to a Parquet file, a folder of them, or a table of a DuckDB database.

        Raises:
            SavedDatasetLocationAlreadyExists: the location exists, and ``allow_overwrite`` is false.
            SourceError: the storage is of an unsupported kind.
        """
        save_rows(self.config, self.to_reader(), storage.to_data_source(), overwrite=allow_overwrite)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        return pa.concat_tables(self.batches(_BATCH_ROWS))

    def _add_on_demand(self, table: pa.Table) -> pa.Table:
        if not self.on_demand:
            return self.order_columns(table)
        names = self.full_feature_names
        job = _MaterializedTable(
            config=self.config, full_feature_names=names, on_demand=self.on_demand, job=self, table=table
        )
        return self.order_columns(job.to_arrow())

    def order_columns(self, table: pa.Table) -> pa.Table:
        """Return a table with its columns in the order of the request."""
        return table


@dataclass(kw_only=True, eq=False)
class _MaterializedTable(SkewlessRetrievalJob):
    """A computed table in the form of a job, from which Feast computes on-demand features."""

    job: SkewlessRetrievalJob
    table: pa.Table

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self.job.metadata

    def batches(self, rows: int) -> Iterator[pa.Table]:  # noqa: ARG002 - one table
        yield self.table


def _exact_frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_integer(column.type) and column.null_count and _too_large(column):
            nullable: Literal["Int64", "UInt64"] = "UInt64" if pa.types.is_unsigned_integer(column.type) else "Int64"
            frame[name] = pd.Series(column.to_pylist(), dtype=nullable, index=frame.index)
    return frame


def _too_large(column: pa.ChunkedArray) -> bool:
    ends = pc.min_max(column).as_py()
    return ends["max"] is not None and max(ends["max"], -ends["min"]) > _EXACT
