"""Feast's ``FeatureStore`` for projects with windowed views: what is pushed to the source of one becomes events."""

from __future__ import annotations

import asyncio
from typing import Any

import pandas as pd
from feast import FeatureStore
from feast.data_source import PushMode

from skewless_feast.online_store import SkewlessOnlineStore
from skewless_feast.stored_views import Table, is_windowed


class SkewlessFeatureStore(FeatureStore):
    """A ``FeatureStore`` whose pushes also accept events.

    Feast's own ``push`` rejects a frame that lacks the features of one of the source's views, before any store or
    provider is called. Events do not have these features.
    """

    def push(
        self,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,  # noqa: FBT001, FBT002 - Feast's signature
        to: PushMode = PushMode.ONLINE,
        transform_on_write: bool = True,  # noqa: FBT001, FBT002 - Feast's signature
    ) -> None:
        """Push as Feast; for the source of a windowed view, each row becomes one event, however many views read it.

        Returns when the stream has the events, and the source's other views have the rows.

        Raises:
            RequestError: the applied plan has no such source, or a row cannot be sent.
            StoreError: the stream or the online store is unreachable.
        """
        views = self._views_of(push_source_name, cached=allow_registry_cache)
        if not any(map(is_windowed, views)):
            super().push(push_source_name, df, allow_registry_cache, to, transform_on_write)
            return
        provider: Any = self.provider
        store: SkewlessOnlineStore = provider.online_store
        # Events first: if the stream is unreachable, no view has been written, and the caller can push again.
        store.push_events(self.config, push_source_name, df)
        for name in sorted(view.name for view in views if not is_windowed(view)):
            if to is not PushMode.OFFLINE:
                self.write_to_online_store(
                    name, df, allow_registry_cache=allow_registry_cache, transform_on_write=transform_on_write
                )
            if to is not PushMode.ONLINE:
                self.write_to_offline_store(name, df, allow_registry_cache=allow_registry_cache)

    async def push_async(
        self,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,  # noqa: FBT001, FBT002 - Feast's signature
        to: PushMode = PushMode.ONLINE,
        **kwargs: Any,  # noqa: ANN401 - Feast's signature
    ) -> None:
        """Push as ``push``; events are sent from a thread."""
        if any(map(is_windowed, self._views_of(push_source_name, cached=allow_registry_cache))):
            await asyncio.to_thread(self.push, push_source_name, df, allow_registry_cache, to)
        else:
            await super().push_async(push_source_name, df, allow_registry_cache, to, **kwargs)

    def _views_of(self, source: str, *, cached: bool) -> list[Table]:
        """Return the views of a push source; empty on other online stores, which have no windows."""
        provider: Any = self.provider
        if not isinstance(provider.online_store, SkewlessOnlineStore):
            return []
        views = [*self.list_feature_views(allow_cache=cached), *self.list_stream_feature_views(allow_cache=cached)]
        return [view for view in views if view.stream_source is not None and view.stream_source.name == source]
