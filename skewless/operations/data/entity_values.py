"""The values of one entity: now in the online store, and at a time in the log."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from skewless.contract.clock import from_us
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.contract.keys import KeyValue, parse_key
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.request import ParsedRows
from skewless.contract.rows import NO_TIME, ViewRead
from skewless.contract.status import Status
from skewless.contract.vector import view_status
from skewless.contract.windows.view import WindowView
from skewless.infra.definitions.plans.needed_views import NeededViews
from skewless.infra.reads.online.marker_history import MarkerHistory
from skewless.infra.reads.online.service_vectors import FeatureReader
from skewless.workspace import Workspace

Side = Literal["online", "knowledge", "event_time"]
Entity = Mapping[str, KeyValue | None]
"""Join key -> value."""


@dataclass(frozen=True, kw_only=True)
class EntityRow:
    """One row of an entity.

    Args:
        status: PRESENT, STALE or MISSING.
        age_s: of the row at the requested time, seconds; None: the entity has no row.
        watermark_age_s: age of the watermark of the view, seconds; None: unknown, or read from the log.
        event_time, created_time: ISO 8601.
        run: number of the materialization that accepted the row.
        position: in the log.
        features: None is null; bytes are hexadecimal.
    """

    status: str
    age_s: float | None
    watermark_age_s: float | None
    event_time: str | None
    created_time: str | None
    run: int | None
    position: int | None
    features: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class EntityView:
    """The rows of one entity in one view.

    Args:
        sides: ``online`` now; with a requested time also ``knowledge`` (as known then) and ``event_time``.
    """

    view: str
    keys: Mapping[str, KeyValue | None]
    sides: Mapping[Side, EntityRow]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, each side by its name."""
        return {"view": self.view, "keys": dict(self.keys)} | {side: asdict(row) for side, row in self.sides.items()}


@dataclass(frozen=True, kw_only=True)
class EntityValues:
    """The values of an entity.

    Args:
        t_us: when the online store was read, UTC microseconds.
        as_of_us: the requested time; None: only the online store was read.
    """

    t_us: int
    as_of_us: int | None
    views: list[EntityView]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"t_us": self.t_us, "as_of_us": self.as_of_us, "views": [view.as_dict() for view in self.views]}


def read_entity(project: Workspace, name: str, keys: Mapping[str, str], *, as_of_us: int | None = None) -> EntityValues:
    """Return an entity's values in a view or in all views of a feature service.

    Args:
        name: of a view, of a view version that only models need (``NAME@HASH``), or of a feature service.
        keys: join key -> value as text.
        as_of_us: also read the log as of this time, UTC microseconds.

    Raises:
        RequestError: the plan has no such view or service, or the keys are not those of its entities.
        StoreError: the store is unavailable.
    """
    plan = _plan(project.needed, name)
    entity = _keys(plan, keys)
    now = project.clock.now_us()
    online = read_online(project, plan, entity, now)
    views = []
    for view in plan.all_views:
        sides: dict[Side, EntityRow] = {"online": online[view.name]}
        if as_of_us is not None:
            sides["knowledge"] = read_logged(project, view, entity, "knowledge", as_of_us)
            sides["event_time"] = read_logged(project, view, entity, "event_time", as_of_us)
        own = {column.name: entity[column.name] for column in view.keys}
        views.append(EntityView(view=view.name, keys=own, sides=sides))
    return EntityValues(t_us=now, as_of_us=as_of_us, views=views)


def select_views(needed: NeededViews, keys: Collection[str]) -> FeaturePlan:
    """Return the plan with only those views whose keys are among some; without older versions of a view."""
    plan = needed.plan
    views = tuple(view for view in plan.views if _has_keys(view, keys) and not needed.is_only_pinned(view))
    windows = tuple(view for view in plan.windows if _has_keys(view, keys) and not needed.is_only_pinned(view))
    return replace(plan, views=views, windows=windows, request=())


def read_online(project: Workspace, plan: FeaturePlan, entity: Entity, now_us: int) -> dict[str, EntityRow]:
    """Return the rows of an entity in the online store, by view, from one round trip.

    Raises:
        StoreError: the store is unavailable.
    """
    request = ParsedRows(keys={key: [value] for key, value in entity.items()}, fields={})
    history = MarkerHistory.from_runs(project.state, [plan])
    reader = FeatureReader(plan, project.online_reader, marker_history=history)
    online, watermarks = reader.views(request, now_us // 1_000 * 1_000)
    return {view.name: _row(view, online[view.name], now_us, watermarks[view.name]) for view in plan.all_views}


def _has_keys(view: View | WindowView, keys: Collection[str]) -> bool:
    return {column.name for column in view.keys} <= set(keys)


def _plan(needed: NeededViews, name: str) -> FeaturePlan:
    plan, label = needed.plan, needed.label
    if name in map(label, plan.all_views):
        views = tuple(view for view in plan.views if label(view) == name)
        windows = tuple(view for view in plan.windows if label(view) == name)
        return replace(plan, views=views, windows=windows, request=())
    if name in {service.name for service in plan.services}:
        return replace(plan.select_service(name), request=())
    names = ", ".join([label(view) for view in plan.all_views] + [service.name for service in plan.services])
    raise RequestError("name", "is neither a feature view nor a service", value=name, fix=f"use one of {names}")


def _keys(plan: FeaturePlan, texts: Mapping[str, str]) -> dict[str, KeyValue | None]:
    columns = {column.name: column for column in plan.join_keys}
    if texts.keys() != columns.keys():
        fix = "give " + " ".join(f"--key {name}=VALUE" for name in columns)
        raise RequestError("option --key", "does not name the entity", value=", ".join(texts) or None, fix=fix)
    return {name: parse_key(column, texts[name]) for name, column in columns.items()}


def read_logged(
    project: Workspace,
    view: View | WindowView,
    keys: Entity,
    order: Literal["knowledge", "event_time"],
    t: int,
) -> EntityRow:
    """Return the row of an entity in the log as of a time, UTC microseconds.

    Raises:
        StoreError: a log file is corrupt.
    """
    entity = _entity(view, keys, t)
    if isinstance(view, WindowView):
        return _row(view, project.views.read_window(view, entity, order), t)
    return _row(view, project.views.read_view(view, entity, order), t)


def _entity(view: View | WindowView, keys: Mapping[str, KeyValue | None], t: int) -> pa.Table:
    kinds = {DType.INT32: pa.int32(), DType.INT64: pa.int64(), DType.STRING: pa.string()}
    columns = {column.name: pa.array([keys[column.name]], kinds[column.dtype]) for column in view.keys}
    return pa.table({**columns, "__t": pa.array([t], pa.int64())})


def _row(view: View | WindowView, read: ViewRead, t: int, watermark_us: int = 0) -> EntityRow:
    """Return the row of a read; a watermark of 0 is unknown."""
    versions = read.versions
    event, created = int(versions.event_ts[0]), int(versions.created_ts[0])
    has_row = int(versions.seq[0]) >= 0
    return EntityRow(
        status=Status(int(view_status(read, np.array([t], dtype=np.int64), view.ttl_us)[0])).name,
        age_s=(t - event) / 1_000_000 if has_row else None,
        watermark_age_s=max(t - watermark_us, 0) / 1_000_000 if watermark_us else None,
        event_time=from_us(event).isoformat() if has_row else None,
        created_time=from_us(created).isoformat() if has_row and created != NO_TIME else None,
        run=int(versions.run_id[0]) if has_row else None,
        position=int(versions.seq[0]) if has_row else None,
        features={
            column.name: None if read.nulls[column.name][0] else _value(read.values[column.name][0])
            for column in view.features
        },
    )


def _value(value: Any) -> object:  # noqa: ANN401 - numpy's scalars, text, bytes
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str) else value.item()
