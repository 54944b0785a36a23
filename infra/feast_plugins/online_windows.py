"""Windowed views as Feast reads them online: computed from their states, at the moment of the request."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
from skewless.infra.feast_plugins.entity_keys import key_values
from skewless.infra.feast_plugins.online_results import FeastRow, ViewFeatures, refuse_missing_keys
from skewless.infra.feast_plugins.stored_views import Table
from skewless.infra.feast_plugins.values import unpack_values
from skewless.infra.feast_plugins.vectors import column_entries, event_stamps, response_bytes, shown_cells
from skewless.infra.feast_plugins.windowed_views import WindowPlans
from skewless.infra.online.marker_history import AgeLimit, MarkerHistory
from skewless.infra.online.port import Marker
from skewless.infra.online.window_states import WindowStates

_LOOK_S = 0.5
_MOST = 1_000
_KIND = "double_val"


class Reader(Protocol):
    """What states are read with."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the row of each key."""
        ...

    def on_connect(self, work: Callable[[], None]) -> None:
        """Have something done whenever a connection was made, before anything is read over it."""
        ...


@dataclass(kw_only=True)
class _CachedView:
    """A view that was asked for before.

    Args:
        look_at: when it is looked up again which states are read, on the monotonic clock.
        wanted: what was asked of it.
    """

    view: WindowView
    pointers: Sequence[bytes]
    states: WindowStates
    guard: MarkerHistory
    look_at: float = 0.0
    wanted: dict[object, ViewFeatures] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RequestedWindow:
    """What a request wants of one windowed view.

    Args:
        keys: the key of each entity's state, None where it has a null or no states are known.
        marks: the markers to be read with them.
    """

    table: Table
    wanted: ViewFeatures
    keys: Sequence[bytes | None]
    marks: Sequence[str]
    known: _CachedView

    def respond(
        self,
        response: GetOnlineFeaturesResponse,
        rows: Sequence[bytes | None],
        stood: Mapping[str, Marker | None],
        now_us: int,
        *,
        full_names: bool,
    ) -> None:
        """Add the view's features to a response.

        Args:
            rows: what the store holds under the keys.
            stood: where the markers were.
            full_names: write the view's name before those of its features.
        """
        read = self._read(rows, stood, now_us)
        prefix = f"{self.table.projection.name_to_use()}__" if full_names else ""
        response.metadata.feature_names.val.extend([prefix + name for name in self.wanted.names])
        # What the states cannot tell is not found: Feast has no status for it.
        status = row_status(read.has_row, read.versions.event_ts, now_us, 0)
        nulls = np.stack([read.nulls[name] for name in self.wanted.names])
        values = [read.values[name] for name in self.wanted.names]
        entries = column_entries(self.wanted.kinds, values, shown_cells(nulls, status))
        stamps = event_stamps(read.versions.event_ts, read.has_row)
        response.MergeFromString(response_bytes(entries, nulls, status, stamps))

    def feast_rows(
        self, rows: Sequence[bytes | None], stood: Mapping[str, Marker | None], now_us: int
    ) -> list[FeastRow]:
        """Return one pair a row, as ``OnlineStore.online_read`` does."""
        read = self._read(rows, stood, now_us)
        names = self.wanted.names
        columns = [unpack_values(_KIND, read.values[name], ~read.nulls[name]) for name in names]
        return [
            (from_us(moment), dict(zip(names, values, strict=True))) if found else (None, None)
            for moment, found, *values in zip(
                read.versions.event_ts.tolist(), read.has_row.tolist(), *columns, strict=True
            )
        ]

    def _read(self, rows: Sequence[bytes | None], stood: Mapping[str, Marker | None], now_us: int) -> ViewRead:
        view, t = self.known.view, now_us // MILLISECOND * MILLISECOND
        limits = [AgeLimit(view.hash, self.marks, view.max_age_us)] if view.max_age_us else []
        standing = self.known.guard.judge(self.marks, [stood[mark] for mark in self.marks]).within(limits, t)
        return self.known.states.read(self.keys, rows, standing, t).reads[view.name]


class OnlineWindows:
    """The windowed views of a project; threads may share it.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._plans = WindowPlans(state)
        self._known: dict[str, _CachedView] = {}
        self._alone = threading.Lock()

    def ask(
        self, reader: Reader, table: Table, names: Sequence[str] | None, columns: Mapping[str, Sequence[Value]]
    ) -> RequestedWindow:
        """Return what a request wants of a view.

        Args:
            names: the features, in any order; None: all.
            columns: the entities' keys, by join key.

        Raises:
            StalePlanError: the plan in force lacks the view.
            RequestError: a feature is unknown, a join key is missing, or has a value of another type.
            StoreError: the store is away.
        """
        view = self._plans.view(table, names or ())
        refuse_missing_keys(table, view.keys, columns)
        values = key_values(view.keys, columns)
        n = len(next(iter(values.values())))
        with self._alone:
            known = self._of(view, reader)
            if time.monotonic() > known.look_at:
                known.states.take(reader.get(known.pointers))
                known.look_at = time.monotonic() + _LOOK_S
            keys, marks = known.states.names(values, n), known.states.markers
        return RequestedWindow(table=table, wanted=_wanted(known, table, names), keys=keys, marks=marks, known=known)

    def _of(self, view: WindowView, reader: Reader) -> _CachedView:
        if view.hash not in self._known:
            plan = FeaturePlan(
                project=self._plans.plan.project,
                views=(),
                request=(),
                transforms=(),
                services=(),
                windows=(view,),
            )
            guard, states = MarkerHistory.of_runs(self._state, [plan], reader), WindowStates(plan)
            self._known[view.hash] = _CachedView(view=view, pointers=states.pointers, states=states, guard=guard)
        return self._known[view.hash]


def _wanted(known: _CachedView, table: Table, names: Sequence[str] | None) -> ViewFeatures:
    used = table.projection.name_to_use()
    version = (used, None if names is None else tuple(names))
    if version not in known.wanted:
        if len(known.wanted) >= _MOST:
            known.wanted.clear()
        own = [column.name for column in known.view.features]
        chosen = own if names is None else sorted(names, key=own.index)
        known.wanted[version] = ViewFeatures(
            names=chosen,
            places=np.array([own.index(name) for name in chosen], dtype=np.intp),
            kinds=[_KIND] * len(chosen),
            writers=(),
            types={f"{used}__{name}": ValueType.DOUBLE for name in chosen} | dict.fromkeys(chosen, ValueType.DOUBLE),
        )
    return known.wanted[version]
