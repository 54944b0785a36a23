"""``FeatureStore.push`` for event sources, and without silent losses: what Feast has no hook for is wrapped.

Feast's own push hands a frame to every view of a source, one by one, and refuses a frame that lacks a view's features
before any store or provider sees it. Events lack them, and must be sent once, however many views read them. It also
drops frames without a value, and turns values into messages that hold others. So three methods of ``FeatureStore`` are
wrapped when a project with our online store is opened; they act on such projects alone.
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
from skewless.infra.feast_plugins.windowed_views import is_windowed, refuse_windowed

_TAUGHT = "_skewless_pushes"
_Verb = Callable[..., Any]


def teach_pushes(config: type, online_store: type) -> None:
    """Let ``push`` and ``push_async`` send events; doing it again changes nothing.

    Args:
        config: class of the configuration of our online store.
        online_store: its class.
    """
    if not hasattr(FeatureStore, _TAUGHT):
        verbs: Any = FeatureStore
        verbs.push = _push(verbs.push)
        verbs.push_async = _push_async(verbs.push_async)
        name = "_get_feature_view_and_df_for_online_write"
        setattr(verbs, name, _checked(getattr(verbs, name)))
        setattr(verbs, _TAUGHT, (config, online_store))


def _push(feasts: _Verb) -> _Verb:
    @functools.wraps(feasts)
    def push(
        store: FeatureStore,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,  # noqa: FBT001, FBT002 - Feast's signature
        to: PushMode = PushMode.ONLINE,
        transform_on_write: bool = True,  # noqa: FBT001, FBT002 - Feast's signature
    ) -> None:
        others = _sent(store, push_source_name, df, cached=allow_registry_cache)
        if others is None:
            feasts(store, push_source_name, df, allow_registry_cache, to, transform_on_write)
            return
        for name in others:
            if to in {PushMode.ONLINE, PushMode.ONLINE_AND_OFFLINE}:
                store.write_to_online_store(
                    name, df, allow_registry_cache=allow_registry_cache, transform_on_write=transform_on_write
                )
            if to in {PushMode.OFFLINE, PushMode.ONLINE_AND_OFFLINE}:
                store.write_to_offline_store(name, df, allow_registry_cache=allow_registry_cache)

    return push


def _push_async(feasts: _Verb) -> _Verb:
    @functools.wraps(feasts)
    async def push_async(
        store: FeatureStore,
        push_source_name: str,
        df: pd.DataFrame,
        allow_registry_cache: bool = True,  # noqa: FBT001, FBT002 - Feast's signature
        to: PushMode = PushMode.ONLINE,
        **kwargs: Any,  # noqa: ANN401 - Feast's signature
    ) -> None:
        if _fed(store, push_source_name, cached=allow_registry_cache):
            await asyncio.to_thread(store.push, push_source_name, df, allow_registry_cache, to)
        else:
            await feasts(store, push_source_name, df, allow_registry_cache, to, **kwargs)

    return push_async


def _checked(feasts: _Verb) -> _Verb:
    @functools.wraps(feasts)
    def checked(store: FeatureStore, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - handed on as they came
        view, frame = feasts(store, *args, **kwargs)
        online = _ours(store)
        if online is None:
            return view, frame
        refuse_windowed(view)
        if frame is None:
            return view, frame
        _count_dropped(store, online, view, frame)
        return view, fit_frame(view, frame)

    return checked


def _count_dropped(store: FeatureStore, online: Any, view: Any, frame: pd.DataFrame) -> None:  # noqa: ANN401 - as below
    """Count the rows of a frame without any value: Feast drops such a frame before a store sees it."""
    names = [field.name for field in view.features if field.name in frame.columns]
    if len(frame) and names and all(frame[name].isnull().all() for name in names):
        stored = online.form(store.config, view).view
        online.leave_out(store.config, stored, {"no row of the frame has a value, so Feast drops it": len(frame)})


def _sent(store: FeatureStore, source: str, df: pd.DataFrame, *, cached: bool) -> list[str] | None:
    """Send the rows of a frame as events; return the source's other views, or None where no view is windowed."""
    views = _fed(store, source, cached=cached)
    if not views:
        return None
    online: Any = _ours(store)
    online.push_events(store.config, source, df)
    return sorted(view.name for view in views if not is_windowed(view))


def _fed(store: FeatureStore, source: str, *, cached: bool) -> set[Any]:
    """Return the views that a source of events feeds; none where the source is Feast's alone."""
    if _ours(store) is None:
        return set()
    views = store._fvs_for_push_source_or_raise(source, cached)  # noqa: SLF001 - the one place that knows
    return set(views) if any(map(is_windowed, views)) else set()


def _ours(store: FeatureStore) -> Any | None:  # noqa: ANN401 - our online store, whose module imports this one
    config, online_store = getattr(FeatureStore, _TAUGHT)
    if not isinstance(store.config.online_store, config):
        return None
    online = getattr(store._get_provider(), "online_store", None)  # noqa: SLF001 - Feast has no other way
    return online if isinstance(online, online_store) else None
