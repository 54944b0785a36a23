"""Online reads of windowed views for Feast: compute features from states at the time of the request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType

from skewless.contract.clock import from_us
from skewless.contract.plan import FeaturePlan
from skewless.contract.rows import ViewRead
from skewless.contract.status import row_status
from skewless.contract.windows.hops import MILLISECOND
from skewless.contract.windows.view import WindowView
from skewless.infra.feast_plugins.entity_keys import parse_keys
from skewless.infra.feast_plugins.online_results import FeastRow, ViewFeatures, check_join_keys
from skewless.infra.feast_plugins.stored_views import Table
from skewless.infra.feast_plugins.values import unpack_values
from skewless.infra.feast_plugins.vectors import encode_columns, encode_event_times, encode_response, find_present
from skewless.infra.feast_plugins.windowed_views import WindowPlans
from skewless.infra.online.marker_history import MarkerHistory
from skewless.infra.online.port import Marker
from skewless.infra.online.window_states import WindowStates
from skewless.infra.storage.project_state import ProjectState

_REFRESH_S = 0.5  # time between two reads of the current generations
_MAX_CACHED = 1_000
_KIND = "double_val"


class Reader(Protocol):
    """The reader of states."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key."""
        ...

    def on_connect(self, callback: Callable[[], None]) -> None:
        """Call a function after each new connection, before its first read."""
        ...


@dataclass(kw_only=True)
class _CachedView:
    """A view with its state reader, cached between requests.

    Args:
        refresh_at: when to read the current generation again, on the monotonic clock.
        features: requested features by request.
    """

    view: WindowView
    pointers: Sequence[bytes]
    states: WindowStates
    history: MarkerHistory
    refresh_at: float = 0.0
    features: dict[object, ViewFeatures] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RequestedWindow:
    """The part of a request for one windowed view.

    Args:
        keys: the online key of each entity's state, None if a key is null or the view has no states.
        markers: the markers to read with them.
    """

    table: Table
    features: ViewFeatures
    keys: Sequence[bytes | None]
    markers: Sequence[str]
    cached: _CachedView

    def add_features(
        self,
        response: GetOnlineFeaturesResponse,
        rows: Sequence[bytes | None],
        markers: Mapping[str, Marker | None],
        now_us: int,
        *,
        full_names: bool,
    ) -> None:
        """Add the view's features to a response.

        Args:
            rows: the stored states of the keys.
            markers: values of the markers.
            full_names: prefix features with the view's name.
        """
        read = self._read(rows, markers, now_us)
        prefix = f"{self.table.projection.name_to_use()}__" if full_names else ""
        response.metadata.feature_names.val.extend([prefix + name for name in self.features.names])
        # Unavailable features are NOT_FOUND: Feast has no status for them.
        # A ttl of 0 is none: events leave a window without it.
        status = row_status(read.has_row, read.versions.event_ts, now_us, 0)
        nulls = np.stack([read.nulls[name] for name in self.features.names])
        values = [read.values[name] for name in self.features.names]
        entries = encode_columns(self.features.kinds, values, find_present(nulls, status))
        event_times = encode_event_times(read.versions.event_ts, read.has_row)
        response.MergeFromString(encode_response(entries, nulls, status, event_times))

    def build_feast_rows(
        self, rows: Sequence[bytes | None], markers: Mapping[str, Marker | None], now_us: int
    ) -> list[FeastRow]:
        """Return a pair (time, values) per row, as ``OnlineStore.online_read``."""
        read = self._read(rows, markers, now_us)
        names = self.features.names
        columns = [unpack_values(_KIND, read.values[name], ~read.nulls[name]) for name in names]
        return [
            (from_us(event_us), dict(zip(names, values, strict=True))) if has_row else (None, None)
            for event_us, has_row, *values in zip(
                read.versions.event_ts.tolist(), read.has_row.tolist(), *columns, strict=True
            )
        ]

    def _read(self, rows: Sequence[bytes | None], markers: Mapping[str, Marker | None], now_us: int) -> ViewRead:
        # Floored as the clock of a prediction is (SEMANTICS 1.2).
        view, t = self.cached.view, now_us // MILLISECOND * MILLISECOND
        status = self.cached.history.check_markers(self.markers, [markers[name] for name in self.markers])
        status = status.limit_age(view.hash, self.markers, view.max_age_us, t)
        return self.cached.states.read(self.keys, rows, status, t).reads[view.name]


class OnlineWindows:
    """The windowed views of a project; threads may share it.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: ProjectState) -> None:
        self._state = state
        self._plans = WindowPlans(state)
        self._cached: dict[str, _CachedView] = {}
        self._lock = threading.Lock()

    def build_request(
        self, reader: Reader, table: Table, names: Sequence[str] | None, columns: Mapping[str, Sequence[Value]]
    ) -> RequestedWindow:
        """Return the part of a request for a view.

        Args:
            names: the features, in any order; None: all features.
            columns: the entities' keys, by join key.

        Raises:
            StalePlanError: the applied plan has no such view.
            RequestError: a feature is unknown, a join key is missing, or has a value of another type.
            StoreError: the store is unreachable.
        """
        view = self._plans.view(table, names or ())
        check_join_keys(table, view.keys, columns)
        values = parse_keys(view.keys, columns)
        n = len(next(iter(values.values())))
        with self._lock:
            cached = self._get(view, reader)
            # A backfill replaces the generation: read its pointer again from time to time, not for each request.
            if time.monotonic() > cached.refresh_at:
                cached.states.load_generations(reader.get(cached.pointers))
                cached.refresh_at = time.monotonic() + _REFRESH_S
            # Under the same lock: a refresh in between would pair keys of one generation with markers of another.
            keys, markers = cached.states.names(values, n), cached.states.markers
        features = _select_features(cached, table, names)
        return RequestedWindow(table=table, features=features, keys=keys, markers=markers, cached=cached)

    def _get(self, view: WindowView, reader: Reader) -> _CachedView:
        if view.hash not in self._cached:
            plan = FeaturePlan(
                project=self._plans.plan.project,
                views=(),
                request=(),
                transforms=(),
                services=(),
                windows=(view,),
            )
            history, states = MarkerHistory.from_runs(self._state, [plan], reader.on_connect), WindowStates(plan)
            self._cached[view.hash] = _CachedView(view=view, pointers=states.pointers, states=states, history=history)
        return self._cached[view.hash]


def _select_features(view: _CachedView, table: Table, names: Sequence[str] | None) -> ViewFeatures:
    prefix = table.projection.name_to_use()
    version = (prefix, None if names is None else tuple(names))
    if version not in view.features:
        if len(view.features) >= _MAX_CACHED:
            view.features.clear()
        own = [column.name for column in view.view.features]
        chosen = own if names is None else sorted(names, key=own.index)
        view.features[version] = ViewFeatures(
            names=chosen,
            positions=np.array([own.index(name) for name in chosen], dtype=np.intp),
            kinds=[_KIND] * len(chosen),
            writers=(),
            types={f"{prefix}__{name}": ValueType.DOUBLE for name in chosen} | dict.fromkeys(chosen, ValueType.DOUBLE),
        )
    return view.features[version]
