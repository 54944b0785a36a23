"""The retrieval job, from which users of Feast get a result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast import OnDemandFeatureView
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage, ValidationReference

from skewless_feast.saved_rows import save_rows

_EXACT = 2**53  # greatest integer up to which float64 is exact


@dataclass(kw_only=True, eq=False)
class SkewlessRetrievalJob(RetrievalJob):
    """A lazy result: each read computes it again. Subclasses implement Feast's ``_to_arrow_internal``.

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

    def persist(
        self,
        storage: SavedDatasetStorage,
        allow_overwrite: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        timeout: int | None = None,  # noqa: ARG002 - Feast's signature
    ) -> None:
        """Write the result to a Parquet file or a folder of them.

        Raises:
            SavedDatasetLocationAlreadyExists: the location exists, and ``allow_overwrite`` is false.
            SourceError: the storage is of an unsupported kind.
        """
        save_rows(self.config, self.to_arrow(), storage.to_data_source(), overwrite=allow_overwrite)

    def order_columns(self, table: pa.Table) -> pa.Table:
        """Return a table with its columns in the order of the request."""
        return table


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
