"""Wrap the push methods of ``FeatureStore``: support event sources, and report rows that Feast would drop silently.

Feast passes a frame to each view of a source, and rejects a frame without the features of a view before any store or
provider is called. Events do not have these features, and must be sent once, however many views read them. Feast also
drops frames without a value, and converts some values to other values. It has no hook for any of this, so three methods
of ``FeatureStore`` are wrapped when a project with our online store is opened. Other projects are not affected.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pandas as pd
from feast.data_source import PushMode
from feast.feature_store import FeatureStore

from skewless.infra.feast_plugins.exact_values import fit_frame
from skewless.infra.feast_plugins.stored_views import check_writable, is_windowed

_INSTALLED = "_skewless_pushes"
_Method = Callable[..., Any]


def install_push_hooks(config: type, online_store: type) -> None:
    """Wrap ``push`` and ``push_async``; idempotent.

    Args:
        config: configuration class of our online store.
        online_store: class of our online store.
    """
    if not hasattr(FeatureStore, _INSTALLED):
        methods: Any = FeatureStore
        methods.push = _wrap_push(methods.push)
        methods.push_async = _wrap_push_async(methods.push_async)
        for name, wrap in _PRIVATE.items():
            setattr(methods, name, wrap(getattr(methods, name)))
        setattr(methods, _INSTALLED, (config, online_store))


def _wrap_push(original: _Method) -> _Method:
    @functools.wraps(original)
    def push(
        store: FeatureStore,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,  # noqa: FBT001, FBT002 - Feast's signature
        to: PushMode = PushMode.ONLINE,
        transform_on_write: bool = True,  # noqa: FBT001, FBT002 - Feast's signature
    ) -> None:
        # Events first: if the stream is unreachable, no view has been written, and the caller can push again.
        other_views = _send_events(store, push_source_name, df, cached=allow_registry_cache)
        if other_views is None:
            original(store, push_source_name, df, allow_registry_cache, to, transform_on_write)
            return
        for name in other_views:
            if to in {PushMode.ONLINE, PushMode.ONLINE_AND_OFFLINE}:
                store.write_to_online_store(
                    name, df, allow_registry_cache=allow_registry_cache, transform_on_write=transform_on_write
                )
            if to in {PushMode.OFFLINE, PushMode.ONLINE_AND_OFFLINE}:
                store.write_to_offline_store(name, df, allow_registry_cache=allow_registry_cache)

    return push


def _wrap_push_async(original: _Method) -> _Method:
    @functools.wraps(original)
    async def push_async(
        store: FeatureStore,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,  # noqa: FBT001, FBT002 - Feast's signature
        to: PushMode = PushMode.ONLINE,
        **kwargs: Any,  # noqa: ANN401 - Feast's signature
    ) -> None:
        if _find_views(store, push_source_name, cached=allow_registry_cache):
            # The sender blocks until the stream has the events.
            await asyncio.to_thread(store.push, push_source_name, df, allow_registry_cache, to)
        else:
            await original(store, push_source_name, df, allow_registry_cache, to, **kwargs)

    return push_async


def _wrap_online_write(original: _Method) -> _Method:
    @functools.wraps(original)
    def online_write(store: FeatureStore, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on unchanged
        view, frame = original(store, *args, **kwargs)
        online = _get_online_store(store)
        if online is None:
            return view, frame
        check_writable(view)
        if frame is None:
            return view, frame
        names = [field.name for field in view.features if field.name in frame.columns]
        # Feast drops such a frame before it calls a store.
        if len(frame) and names and all(frame[name].isnull().all() for name in names):
            stored = online.stored_view(store.config, view).view
            reasons = {"no row of the frame has a value, so Feast drops it": len(frame)}
            online.count_skipped(store.config, stored, reasons)
        return view, fit_frame(view, frame)

    return online_write


def _wrap_precompute(original: _Method) -> _Method:
    @functools.wraps(original)
    def precompute(store: FeatureStore, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on unchanged
        # Our store has no precomputed vectors. To find that out, Feast would read the registry again after each push,
        # whatever its `cache_ttl_seconds` and `allow_registry_cache`, and parse all definitions again at the next.
        if _get_online_store(store) is None:
            original(store, *args, **kwargs)

    return precompute


_PRIVATE: dict[str, Callable[[_Method], _Method]] = {
    "_get_feature_view_and_df_for_online_write": _wrap_online_write,
    "_precompute_for_push": _wrap_precompute,
}


def _send_events(store: FeatureStore, source: str, df: pd.DataFrame, *, cached: bool) -> list[str] | None:
    """Send the rows of a frame as events; return the source's other views, or None if no view is windowed."""
    views = _find_views(store, source, cached=cached)
    if not views:
        return None
    online: Any = _get_online_store(store)
    online.push_events(store.config, source, df)
    return sorted(view.name for view in views if not is_windowed(view))


def _find_views(store: FeatureStore, source: str, *, cached: bool) -> set[Any]:
    """Return the views of an event source; empty for a source without windowed views."""
    if _get_online_store(store) is None:
        return set()
    views = store._fvs_for_push_source_or_raise(source, cached)  # noqa: SLF001 - Feast has no public method
    return set(views) if any(map(is_windowed, views)) else set()


def _get_online_store(store: FeatureStore) -> Any | None:  # noqa: ANN401 - the store's module imports this one
    """Return the project's online store if it is ours, else None."""
    config, online_store = getattr(FeatureStore, _INSTALLED)
    if not isinstance(store.config.online_store, config):
        return None
    online = getattr(store._get_provider(), "online_store", None)  # noqa: SLF001 - Feast has no public method
    return online if isinstance(online, online_store) else None
