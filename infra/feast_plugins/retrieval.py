"""The retrieval job, from which users of Feast get a result."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast import OnDemandFeatureView
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage, ValidationReference

from skewless.contract.arrow_types import cast_times
from skewless.contract.clock import from_us
from skewless.infra.feast_plugins.results import PointInTimeResult, RetrievalResult
from skewless.infra.feast_plugins.saved_rows import save_rows

_EXACT = 2**53  # greatest integer up to which float64 is exact
_BATCH_ROWS = 100_000


class SkewlessRetrievalJob(RetrievalJob):
    """A lazy result: each read computes it again."""

    def __init__(
        self,
        config: RepoConfig,
        result: RetrievalResult,
        *,
        full_feature_names: bool = False,
        on_demand: Sequence[OnDemandFeatureView] = (),
        refs: Sequence[str] = (),
    ) -> None:
        self._config = config
        self._result = result
        self._full_feature_names = full_feature_names
        self._on_demand = list(on_demand)
        self._refs = list(refs)
        self._metadata: RetrievalMetadata | None = None

    @property
    def full_feature_names(self) -> bool:
        """Return whether feature names have the view as prefix."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Return the on-demand views, which Feast computes from the result."""
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """Return the requested features, the key columns and the time range; None for plain queries."""
        if self._metadata is None and isinstance(self._result, PointInTimeResult):
            rows = self._result.entity_rows()
            times = cast_times(rows.table[rows.time], pa.timestamp("us")).cast(pa.int64())
            ends = pc.min_max(times).as_py()
            first, last = (None if ends[end] is None else from_us(ends[end]) for end in ("min", "max"))
            self._metadata = RetrievalMetadata(
                features=self._refs,
                keys=[name for name in rows.table.column_names if name != rows.time],
                min_event_timestamp=first,
                max_event_timestamp=last,
            )
        return self._metadata

    def to_arrow(self, validation_reference: ValidationReference | None = None, timeout: int | None = None) -> pa.Table:
        """Return the result as one Arrow table; its columns follow the request.

        Raises:
            SkewlessError: a source, a key or a name is invalid.
        """
        return self._order_columns(super().to_arrow(validation_reference, timeout))

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
        tables = (self._add_on_demand(table) for table in self._result.batches(batch_rows))
        first = next(tables)
        # On-demand features come from pandas, which infers another type for a batch of nulls.
        rest = (batch for table in tables for batch in table.cast(first.schema).to_batches())
        return pa.RecordBatchReader.from_batches(first.schema, chain(first.to_batches(), rest))

    def to_sql(self) -> str:
        """Return one DuckDB statement for the stored features; ``entity_df`` is the name of a data frame."""
        return self._result.sql()

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
        save_rows(self._config, self.to_reader(), storage.to_data_source(), overwrite=allow_overwrite)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        return pa.concat_tables(self._result.batches(_BATCH_ROWS))

    def _add_on_demand(self, table: pa.Table) -> pa.Table:
        if not self._on_demand:
            return self._order_columns(table)
        return self._order_columns(_MaterializedTable(self, table).to_arrow())

    def _order_columns(self, table: pa.Table) -> pa.Table:
        if not isinstance(self._result, PointInTimeResult):
            return table
        order = [name for name in self._result.requested.order if name in table.column_names]
        return table.select([name for name in table.column_names if name not in set(order)] + order)


class _MaterializedTable(RetrievalJob):
    """A computed table in the form of a job, from which Feast computes on-demand features."""

    def __init__(self, job: SkewlessRetrievalJob, table: pa.Table) -> None:
        self._job = job
        self._table = table

    @property
    def full_feature_names(self) -> bool:
        return self._job.full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._job.on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._job.metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        return self._table


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
