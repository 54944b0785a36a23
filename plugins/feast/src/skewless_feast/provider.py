"""The provider for Feast: it writes pushed frames to our online store without changing a value."""

from __future__ import annotations

import asyncio
from typing import Any

import pandas as pd
import pyarrow as pa
from feast import FeatureView
from feast.infra.passthrough_provider import PassthroughProvider

from skewless_feast.online_store import SkewlessOnlineStore
from skewless_feast.rows import frame_to_messages
from skewless_feast.stored_views import OPAQUE, Table, check_writable


class SkewlessProvider(PassthroughProvider):
    """The provider to use with our stores; all but pushes is as in Feast's local provider."""

    def ingest_df(self, feature_view: Table, df: pd.DataFrame, field_mapping: dict[Any, Any] | None = None) -> None:
        """Write a frame to the online store: as columns, or as messages if columns would change a value.

        Raises:
            SourceError: a row has no key or time, a value has another type than its feature or does not fit it, or a
                list contains a null that messages cannot have.
            RequestError: the view is windowed.
            StoreError: the store failed or is unreachable.
        """
        store, view = self.online_store, feature_view
        if not (isinstance(store, SkewlessOnlineStore) and isinstance(view, FeatureView) and view.batch_source):
            super().ingest_df(feature_view, df, field_mapping)
            return
        check_writable(view)
        if not self._write_columns(store, view, df):
            store.online_write_batch(self.repo_config, view, frame_to_messages(view, df), None)

    async def ingest_df_async(
        self, feature_view: Table, df: pd.DataFrame, field_mapping: dict[Any, Any] | None = None
    ) -> None:
        """Write as ``ingest_df``, in a thread."""
        await asyncio.to_thread(self.ingest_df, feature_view, df, field_mapping)

    def _write_columns(self, store: SkewlessOnlineStore, view: FeatureView, df: pd.DataFrame) -> bool:
        if OPAQUE in store.stored_view(self.repo_config, view).kinds.values():
            return False
        source: Any = view.batch_source
        table = pa.Table.from_pandas(df, preserve_index=False)
        renamed = source.field_mapping or {}
        table = table.rename_columns([renamed.get(name, name) for name in table.column_names])
        return store.write_table(self.repo_config, view, table)
