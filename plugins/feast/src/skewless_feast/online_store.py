"""The online store for Feast: packed rows, newer rows win, ttl at read, one read per request."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import pyarrow as pa
from feast import Entity, FeatureService, FeatureView
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.online_response import OnlineResponse
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import StrictStr

from skewless.contract.clock import open_clock
from skewless.contract.errors import RequestError
from skewless.contract.plan import View
from skewless.infra.definitions.sources.source_schema import settings_of, state_of
from skewless.infra.ingest.materialization.skipped_rows import record_skipped
from skewless_feast.connections import Connections
from skewless_feast.feature_history import check_feature_types
from skewless_feast.online_results import (
    FeastRow,
    ViewRequest,
    add_features,
    add_version,
    build_feast_rows,
    build_view_request,
    table_keys,
)
from skewless_feast.rows import PackedRows, Positions, Row, get_batch_source, pack_frame, pack_rows
from skewless_feast.stored_views import (
    StoredView,
    Table,
    build_stored_view,
    check_writable,
    is_windowed,
    read_cache,
)
from skewless_feast.values import key_columns

if TYPE_CHECKING:
    from skewless_feast.online_windows import EventPusher, OnlineWindows

Progress = Callable[[int], Any]

FUTURE = "event time lies more than 10 s in the future"
_SLACK_US = 10_000_000  # tolerated clock difference of clients that push


class SkewlessOnlineStoreConfig(FeastConfigBaseModel):
    """The configuration under ``online_store``; defaults come from ``skewless.yaml`` and ``SKEWLESS_*``.

    Args:
        redis_url: URL of the online store; None, also in the settings: the project's private server.
        state: folder of log and private server, relative to the repo.
        path: ignored; Feast's templates set it for their own store.
    """

    type: Literal["skewless_feast.online_store.SkewlessOnlineStore"] = "skewless_feast.online_store.SkewlessOnlineStore"
    redis_url: StrictStr | None = None
    state: StrictStr | None = None
    path: StrictStr | None = None


class _DirectService(FeatureService):
    """A service with ``precompute_online`` that is read as all others: one read gets all views anyway."""

    def __init__(self, service: FeatureService) -> None:
        self.__dict__ |= vars(service)
        self._service, self.precompute_online = service, False

    def __eq__(self, other: object) -> bool:
        # Feast warns if a service differs from the registered one.
        return bool(self._service == other)

    def __hash__(self) -> int:
        return hash(self._service)


class SkewlessOnlineStore(OnlineStore):
    """The online store of one Feast store object; threads may share it."""

    def __init__(self) -> None:
        """Create the store without opening connections."""
        self._lock = threading.Lock()
        self._connections: Connections | None = None
        self._forms: dict[object, StoredView] = {}
        self._positions: Positions | None = None
        self._windows: OnlineWindows | None = None
        self._pusher: EventPusher | None = None

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Return that reads and writes can be awaited."""
        return SupportedAsyncMethods(read=True, write=True)

    def connections(self, config: RepoConfig) -> Connections:
        """Return the connections to the project's online store."""
        with self._lock:
            if self._connections is None:
                self._connections = Connections(settings_of(config).redis_url, state_of(config).folder)
                # Most users of Feast do not close a store.
                weakref.finalize(self, self._connections.close)
            return self._connections

    def stored_view(self, config: RepoConfig, table: Table) -> StoredView:
        """Return the stored form of a view."""
        return read_cache(self._forms, table, config)

    def online_write_batch(
        self, config: RepoConfig, table: Table, data: Sequence[Row], progress: Progress | None
    ) -> None:
        """Write rows; a row is ignored if the store has a newer row of its entity.

        Raises:
            SourceError: a row has no key or time, or a value of another type than its feature.
            StoreError: the store failed or is unreachable.
        """
        check_writable(table)
        if not data:
            return
        stored = self.stored_view(config, table)
        packed = pack_rows(stored, config.project, data, self._get_positions(config).reserve(len(data)))
        self._put(config, stored.view, packed)
        if progress is not None:
            progress(len(data))

    def write_table(self, config: RepoConfig, table: FeatureView, rows: pa.Table) -> bool:
        """Write rows given as columns; return False, without writing, if only Feast can convert their types.

        Raises:
            SourceError: a row has no key or time.
            StoreError: the store failed or is unreachable.
        """
        check_writable(table)
        positions = self._get_positions(config).reserve(rows.num_rows)
        stored = self.stored_view(config, table)
        packed = pack_frame(stored, config.project, rows, get_batch_source(table), positions)
        if packed is None:
            return False
        self._put(config, stored.view, packed)
        return True

    def count_skipped(self, config: RepoConfig, view: View, reasons: Mapping[str, int]) -> None:
        """Count rows that a direct write skips, by reason.

        Raises:
            GateError: the setting ``strict`` is on.
        """
        if reasons:
            state, now_us, strict = state_of(config), self._get_positions(config).now_us(), settings_of(config).strict
            record_skipped(state, view.name, view.hash, "push", reasons, now_us, strict=strict)

    def _put(self, config: RepoConfig, view: View, packed: PackedRows) -> None:
        """Write rows; count future rows, which hide the current row until their time."""
        future = int((packed.event_ts > self._get_positions(config).now_us() + _SLACK_US).sum())
        self.count_skipped(config, view, {FUTURE: future} if future else {})
        self.connections(config).writer.put(packed.keys, packed.rows)

    async def online_write_batch_async(
        self, config: RepoConfig, table: Table, data: Sequence[Row], progress: Progress | None
    ) -> None:
        """Write as ``online_write_batch``, in a thread."""
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def online_read(
        self,
        config: RepoConfig,
        table: Table,
        entity_keys: Sequence[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[FeastRow]:
        """Return the event time and the values of each entity, (None, None) without a row."""
        if not entity_keys:
            return []
        part = self._request_view(config, table, requested_features, key_columns(entity_keys))
        rows, markers = self.connections(config).get_with_markers(part.keys, part.markers)
        return build_feast_rows(part, rows, markers, self._get_positions(config).now_us())

    async def online_read_async(
        self,
        config: RepoConfig,
        table: Table,
        entity_keys: Sequence[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[FeastRow]:
        """Read as ``online_read``, in a thread."""
        return await asyncio.to_thread(self.online_read, config, table, entity_keys, requested_features)

    def get_online_features(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: list[dict[str, Any]] | Mapping[str, Any],
        *args: Any,  # noqa: ANN401 - passed on unchanged
        **kwargs: Any,  # noqa: ANN401 - passed on unchanged
    ) -> OnlineResponse:
        """Return features of entities, in the order of their views' schemas.

        Raises:
            RequestError: the request has no rows, or a join key is missing or of another type.
            StoreError: the store is unreachable.
        """
        if isinstance(entity_rows, list) and not entity_rows:
            raise RequestError(
                "entity_rows",
                "has no row",
                fix="give at least one row, or columns: {join key: []} gives an empty response",
            )
        if isinstance(features, FeatureService) and features.precompute_online:
            features = _DirectService(features)
        return super().get_online_features(config, features, entity_rows, *args, **kwargs)

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: Sequence[tuple[Table, list[str]]],
        join_key_values: Mapping[str, Sequence[Value]],
        entity_name_to_join_key_map: Mapping[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,  # noqa: FBT001 - Feast's signature
        include_feature_view_version_metadata: bool,  # noqa: FBT001 - Feast's signature
    ) -> None:
        """Add the features of all views to a response, with one read: Feast's hook for stores that batch reads."""
        parts = [
            self._request_view(config, table, names, table_keys(table, join_key_values, entity_name_to_join_key_map))
            for table, names in grouped_refs
        ]
        names = list(dict.fromkeys([marker for part in parts for marker in part.markers]))
        keys = [key for part in parts for key in part.keys]
        rows, markers = self.connections(config).get_with_markers(keys, names)
        now_us = self._get_positions(config).now_us()
        # The rows of all views come in one list, in the order of the views.
        left = iter(rows)
        for part in parts:
            own_rows = list(islice(left, len(part.keys)))
            add_features(online_features_response, part, own_rows, markers, now_us, full_names=full_feature_names)
            if include_feature_view_version_metadata:
                add_version(online_features_response, part.table)

    async def get_online_features_async(self, *args: Any, **kwargs: Any) -> OnlineResponse:  # noqa: ANN401 - passed on unchanged
        """Return features as ``get_online_features``, from a thread."""
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
        """Check the feature types of the remaining views, then delete the rows of removed views.

        Raises:
            SourceError: a column of a source has another type than declared, which cannot be converted exactly.
        """
        for table in tables_to_keep:
            check_feature_types(config, table)
        entities = {entity.name: entity.join_key for entity in (*entities_to_delete, *entities_to_keep)}
        # Views of one definition share their rows, which stay while one of them is left.
        used_hashes = {build_stored_view(table, config, lambda: entities).view.hash for table in tables_to_keep}
        for table in tables_to_delete:
            view_hash = build_stored_view(table, config, lambda: entities).view.hash
            if view_hash not in used_hashes:
                self.connections(config).writer.delete(f"sk:{config.project}:{view_hash}:")
        # A new dict: another thread may be reading the old one.
        self._forms = {}

    def teardown(self, config: RepoConfig, tables: Sequence[Table], entities: Sequence[Entity]) -> None:  # noqa: ARG002 - Feast's signature
        """Delete all keys of the project from the store; the accepted log stays."""
        self.connections(config).writer.delete(f"sk:{config.project}:")
        self.close_connections()

    async def close(self) -> None:
        """Close the connections."""
        self.close_connections()

    def close_connections(self) -> None:
        """Close the connections; the next use opens them again."""
        with self._lock:
            connections, self._connections = self._connections, None
            pusher, self._pusher = self._pusher, None
        for item in (pusher, connections):
            if item is not None:
                item.close()

    def _is_versioned_read_supported(self) -> bool:
        return True

    def push_events(self, config: RepoConfig, source: str, frame: pd.DataFrame) -> None:
        """Send the rows of a frame to the stream of an event source.

        Raises:
            RequestError: the applied plan has no such source, or a row cannot be sent.
            StoreError: the stream is unreachable.
        """
        from skewless_feast.online_windows import EventPusher  # noqa: PLC0415 - for projects with windows only

        address = settings_of(config).stream_url or self.connections(config).address
        with self._lock:
            if self._pusher is None:
                self._pusher = EventPusher(state_of(config), settings_of(config), config.project, address)
            pusher = self._pusher
        pusher.push(source, frame)

    def _request_view(
        self,
        config: RepoConfig,
        table: Table,
        names: Sequence[str] | None,
        keys: Mapping[str, Sequence[Value]],
    ) -> ViewRequest:
        """Return the part of a request for one view."""
        if not is_windowed(table):
            return build_view_request(self.stored_view(config, table), table, names, config.project, keys)
        from skewless_feast.online_windows import OnlineWindows  # noqa: PLC0415 - for projects with windows only

        reader = self.connections(config)
        with self._lock:
            if self._windows is None:
                self._windows = OnlineWindows(state_of(config))
            windows = self._windows
        return windows.build_request(reader, table, names, keys)

    def _get_positions(self, config: RepoConfig) -> Positions:
        with self._lock:
            if self._positions is None:
                self._positions = Positions(open_clock(settings_of(config).clock))
            return self._positions
