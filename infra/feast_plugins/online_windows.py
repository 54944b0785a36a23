"""Online reads of windowed views for Feast: compute features from states at the time of the request."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType

from skewless.contract.plan import FeaturePlan
from skewless.contract.rows import ViewRead
from skewless.contract.status import StatusArray, row_status
from skewless.contract.windows.hops import MILLISECOND
from skewless.contract.windows.view import WindowView
from skewless.infra.feast_plugins.connections import Connections
from skewless.infra.feast_plugins.online_results import (
    Markers,
    Rows,
    ViewFeatures,
    ViewRequest,
    check_join_keys,
    select_features,
)
from skewless.infra.feast_plugins.stored_views import Table, WindowPlans
from skewless.infra.feast_plugins.values import parse_keys
from skewless.infra.online.marker_history import MarkerHistory
from skewless.infra.online.window_states import WindowStates
from skewless.infra.storage.project_state import ProjectState

_REFRESH_S = 0.5  # time between two reads of the current generations


@dataclass(kw_only=True)
class _CachedView:
    """A view with its state reader, cached between requests.

    Args:
        refresh_at: when to read the current generation again, on the monotonic clock.
        features: requested features by request.
    """

    pointers: Sequence[bytes]
    states: WindowStates
    history: MarkerHistory
    refresh_at: float = 0.0
    features: dict[object, ViewFeatures] = field(default_factory=dict)


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
        self, reader: Connections, table: Table, names: Sequence[str] | None, columns: Mapping[str, Sequence[Value]]
    ) -> ViewRequest:
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

        def decode(rows: Rows, values: Markers, now_us: int) -> tuple[ViewRead, StatusArray]:
            # Floored as the clock of a prediction is (SEMANTICS 1.2).
            t = now_us // MILLISECOND * MILLISECOND
            known = cached.history.check_markers(markers, [values[name] for name in markers])
            known = known.limit_age(view.hash, markers, view.max_age_us, t)
            read = cached.states.read(keys, rows, known, t).reads[view.name]
            # Unavailable features are NOT_FOUND: Feast has no status for them.
            # A ttl of 0 is none: events leave a window without it.
            return read, row_status(read.has_row, read.versions.event_ts, now_us, 0)

        features = select_features(
            cached.features,
            table,
            names,
            lambda: {column.name: (i, "double_val", ValueType.DOUBLE) for i, column in enumerate(view.features)},
        )
        return ViewRequest(table=table, features=features, keys=keys, markers=markers, decode=decode)

    def _get(self, view: WindowView, reader: Connections) -> _CachedView:
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
            self._cached[view.hash] = _CachedView(pointers=states.pointers, states=states, history=history)
        return self._cached[view.hash]
