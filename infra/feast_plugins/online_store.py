"""Feast's online store on packed rows: newer wins in any order, ttl holds at read, one read for all views."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pyarrow as pa
from feast import Entity, FeatureService, FeatureView
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.registry.base_registry import BaseRegistry
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.metrics import track_online_store_read
from feast.online_response import OnlineResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.value_type import ValueType
from pydantic import StrictStr

from skewless.contract.clock import open_clock
from skewless.contract.plan import View
from skewless.infra.feast_plugins.apply_checks import check_kept
from skewless.infra.feast_plugins.connections import Connections
from skewless.infra.feast_plugins.entity_keys import key_columns
from skewless.infra.feast_plugins.frames import pack_frame
from skewless.infra.feast_plugins.latest_messages import batch_source
from skewless.infra.feast_plugins.online_request import EntityRows, OnlineRequest
from skewless.infra.feast_plugins.online_results import FeastRow, ViewRequest, ask, feast_rows, respond, say_version
from skewless.infra.feast_plugins.rows import PackedRows, Positions, Row, pack_rows
from skewless.infra.feast_plugins.store_verbs import teach_pushes
from skewless.infra.feast_plugins.stored_view_cache import StoredViewCache
from skewless.infra.feast_plugins.stored_views import StoredView, Table, stored_form
from skewless.infra.feast_plugins.windowed_views import is_windowed, refuse_windowed
from skewless.infra.materialization.skipped_rows import record_skipped
from skewless.infra.sources.place import settings_of, state_of

if TYPE_CHECKING:
    from skewless.infra.feast_plugins.online_windows import OnlineWindows, RequestedWindow
    from skewless.infra.feast_plugins.pushed_events import EventPusher

Progress = Callable[[int], Any]

FUTURE = "event time lies more than 10 s in the future"
_SLACK_US = 10_000_000  # clocks of those who push may be ahead


class SkewlessOnlineStoreConfig(FeastConfigBaseModel):
    """The lines under ``online_store``; what is not given comes from ``skewless.yaml`` and ``SKEWLESS_*``.

    Args:
        redis_url: of the online store; none anywhere: the project's private server.
        state: the folder of log and private server, relative to the repo.
        path: read by nobody: Feast's templates have it for their own store, and it may stay.
    """

    type: Literal["skewless.infra.feast_plugins.online_store.SkewlessOnlineStore"] = (
        "skewless.infra.feast_plugins.online_store.SkewlessOnlineStore"
    )
    redis_url: StrictStr | None = None
    state: StrictStr | None = None
    path: StrictStr | None = None

    def model_post_init(self, _context: object, /) -> None:
        """Teach Feast our pushes: a project that has this store is being opened."""
        teach_pushes(SkewlessOnlineStoreConfig, SkewlessOnlineStore)


class SkewlessOnlineStore(OnlineStore):
    """One per Feast store object; threads may share it."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._alone = threading.Lock()
        self._opened: Connections | None = None
        self._forms = StoredViewCache()
        self._positions: Positions | None = None
        self._windows: OnlineWindows | None = None
        self._pusher: EventPusher | None = None

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Say that reads and writes may be awaited."""
        return SupportedAsyncMethods(read=True, write=True)

    def connections(self, config: RepoConfig) -> Connections:
        """Return the connections to the project's online store."""
        with self._alone:
            if self._opened is None:
                self._opened = Connections(settings_of(config).redis_url, state_of(config))
                # Most users of Feast never close a store.
                weakref.finalize(self, self._opened.close)
            return self._opened

    def form(self, config: RepoConfig, table: Table) -> StoredView:
        """Return how the rows of a view lie in the store."""
        return self._forms.of(table, config)

    def online_write_batch(
        self, config: RepoConfig, table: Table, data: Sequence[Row], progress: Progress | None
    ) -> None:
        """Write rows, each unless the store holds a newer one of its entity.

        Raises:
            SourceError: a row has no key or time, or a value of another type than its feature.
            StoreError: the store refused or is away.
        """
        refuse_windowed(table)
        if not data:
            return
        stored = self._forms.keyed(self.form(config, table), data[0][0])
        packed = pack_rows(stored, config.project, data, self._numbers(config).take(len(data)))
        self._put(config, stored.view, packed)
        if progress is not None:
            progress(len(data))

    def write_table(self, config: RepoConfig, table: FeatureView, rows: pa.Table) -> bool:
        """Write rows that are columns; return False, having written nothing, where that needs Feast's conversions.

        Raises:
            SourceError: a row has no key or time.
            StoreError: the store refused or is away.
        """
        refuse_windowed(table)
        positions = self._numbers(config).take(rows.num_rows)
        stored = self.form(config, table)
        packed = pack_frame(stored, config.project, rows, batch_source(table), positions)
        if packed is None:
            return False
        self._put(config, stored.view, packed)
        return True

    def leave_out(self, config: RepoConfig, view: View, reasons: Mapping[str, int]) -> None:
        """Count what a direct write leaves out of a view.

        Raises:
            GateError: the setting ``strict`` allows none.
        """
        if reasons:
            state, now_us, strict = state_of(config), self._numbers(config).now_us(), settings_of(config).strict
            record_skipped(state, view.name, view.hash, "push", reasons, now_us, strict=strict)

    def _put(self, config: RepoConfig, view: View, packed: PackedRows) -> None:
        """Write rows; one of the future is not served before its time, and nor is the one that it replaces."""
        future = int((packed.event_ts > self._numbers(config).now_us() + _SLACK_US).sum())
        self.leave_out(config, view, {FUTURE: future} if future else {})
        self.connections(config).writer.put(packed.keys, packed.rows)

    async def online_write_batch_async(
        self, config: RepoConfig, table: Table, data: Sequence[Row], progress: Progress | None
    ) -> None:
        """Write as ``online_write_batch`` does, beside the event loop."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def online_read(
        self,
        config: RepoConfig,
        table: Table,
        entity_keys: Sequence[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[FeastRow]:
        """Return the event time and the values of each entity, (None, None) where there is no row."""
        if not entity_keys:
            return []
        if is_windowed(table):
            item = self._ask_windows(config, table, requested_features, key_columns(entity_keys))
            rows, stood = self.connections(config).get_with_markers(item.keys, item.marks)
            return item.feast_rows(rows, stood, self._numbers(config).now_us())
        stored = self._forms.keyed(self.form(config, table), entity_keys[0])
        asked = ask(stored, table, requested_features, config.project, key_columns(entity_keys))
        return feast_rows(asked, self.connections(config).get(asked.keys), self._numbers(config).now_us())

    async def online_read_async(
        self,
        config: RepoConfig,
        table: Table,
        entity_keys: Sequence[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[FeastRow]:
        """Read as ``online_read`` does, beside the event loop."""
        return await asyncio.to_thread(self.online_read, config, table, entity_keys, requested_features)

    def get_online_features(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: EntityRows,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
        include_feature_view_version_metadata: bool = False,  # noqa: FBT001, FBT002 - Feast's signature
    ) -> OnlineResponse:
        """Return features of entities, in the order of their views' schemas.

        Services with ``precompute_online`` are read as all others: one read finds every view anyway.

        Raises:
            RequestError: a join key is missing or of another type.
            StoreError: the store is away.
        """
        request = OnlineRequest.resolve(registry, project, features, entity_rows, full_names=full_feature_names)
        return self._read(config, request, versions=include_feature_view_version_metadata)

    async def get_online_features_async(self, *args: Any, **kwargs: Any) -> OnlineResponse:  # noqa: ANN401 - handed on as they came
        """Return what ``get_online_features`` does, beside the event loop."""
        return await asyncio.to_thread(self.get_online_features, *args, **kwargs)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[Table],
        tables_to_keep: Sequence[Table],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,  # noqa: ARG002, FBT001 - Feast's signature
    ) -> None:
        """Delete the rows of views that are gone, once it is sure that those that are kept can be materialised.

        Raises:
            SourceError: a source has a column of another type than declared, which cannot be converted exactly.
        """
        for table in tables_to_keep:
            check_kept(config, table)
        entities = {entity.name: entity.join_key for entity in (*entities_to_delete, *entities_to_keep)}
        kept = {stored_form(table, config, lambda: entities).view.hash for table in tables_to_keep}
        for table in tables_to_delete:
            gone = stored_form(table, config, lambda: entities).view.hash
            if gone not in kept:
                self.connections(config).writer.delete(f"sk:{config.project}:{gone}:")
        self._forms.forget()

    def teardown(self, config: RepoConfig, tables: Sequence[Table], entities: Sequence[Entity]) -> None:  # noqa: ARG002 - Feast's signature
        """Delete everything that the store holds of the project, and no other's; the accepted log stays."""
        self.connections(config).writer.delete(f"sk:{config.project}:")
        self.close_connections()

    async def close(self) -> None:
        """Give the connections back."""
        self.close_connections()

    def close_connections(self) -> None:
        """Give the connections back; the next use opens them again."""
        with self._alone:
            opened, self._opened = self._opened, None
            pusher, self._pusher = self._pusher, None
        for item in (pusher, opened):
            if item is not None:
                item.close()

    def _is_versioned_read_supported(self) -> bool:
        return True

    def _read(self, config: RepoConfig, request: OnlineRequest, *, versions: bool) -> OnlineResponse:
        """Answer all views of a request from one read."""
        started = time.monotonic()
        asked = [self._asked(config, request, table, names) for table, names in request.views]
        marks = list(dict.fromkeys([mark for item in asked for mark in item.marks]))
        rows, stood = self.connections(config).get_with_markers([key for item in asked for key in item.keys], marks)
        now_us = self._numbers(config).now_us()
        types: dict[str, ValueType] = {}
        start = 0
        for item in asked:
            types |= item.wanted.types
            part = rows[start : start + len(item.keys)]
            start += len(part)
            if isinstance(item, ViewRequest):
                respond(request.response, item, part, now_us, full_names=request.full_names)
            else:
                item.respond(request.response, part, stood, now_us, full_names=request.full_names)
            if versions:
                say_version(request.response, item.table)
        track_online_store_read(time.monotonic() - started)
        return request.answer(types)

    def push_events(self, config: RepoConfig, source: str, frame: pd.DataFrame) -> None:
        """Put the rows of a frame into the stream of an event source.

        Raises:
            RequestError: the plan in force has no such source, or a row cannot be sent.
            StoreError: the stream is away.
        """
        from skewless.infra.feast_plugins.pushed_events import EventPusher  # noqa: PLC0415 - for projects with windows only

        address = settings_of(config).stream_url or self.connections(config).address
        with self._alone:
            if self._pusher is None:
                self._pusher = EventPusher(state_of(config), settings_of(config), config.project, address)
            pusher = self._pusher
        pusher.push(source, frame)

    def _asked(
        self, config: RepoConfig, request: OnlineRequest, table: Table, names: list[str]
    ) -> ViewRequest | RequestedWindow:
        keys = table_keys(table, request.keys, request.join_keys)
        if is_windowed(table):
            return self._ask_windows(config, table, names, keys)
        return ask(self.form(config, table), table, names, config.project, keys)

    def _ask_windows(
        self, config: RepoConfig, table: Table, names: Sequence[str] | None, keys: Mapping[str, Sequence[Value]]
    ) -> RequestedWindow:
        from skewless.infra.feast_plugins.online_windows import OnlineWindows  # noqa: PLC0415 - for projects with windows only

        reader = self.connections(config)
        with self._alone:
            if self._windows is None:
                self._windows = OnlineWindows(state_of(config))
            windows = self._windows
        return windows.ask(reader, table, names, keys)

    def _numbers(self, config: RepoConfig) -> Positions:
        with self._alone:
            if self._positions is None:
                self._positions = Positions(open_clock(settings_of(config).clock))
            return self._positions


def table_keys(
    table: Table, values: Mapping[str, Sequence[Value]], join_keys: Mapping[str, str]
) -> dict[str, Sequence[Value]]:
    """Return a view's key columns from those of a request, which may call them by the names of a projection.

    Args:
        values: join key, as the request calls it -> its values.
        join_keys: entity -> join key.
    """
    named = table.projection.join_key_map
    return {own: values[named.get(own, own)] for own in own_keys(table, join_keys) if named.get(own, own) in values}


def own_keys(table: Table, join_keys: Mapping[str, str]) -> list[str]:
    """Return the join keys of a view as it declares them."""
    return [str(column.name) for column in table.entity_columns] or [join_keys[name] for name in table.entities]
