"""``skewless get``: what the online store holds for one entity, and the offline truth beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skewless.commands.options import Json, Repo, open_project
from skewless.commands.output import Output, answering, table
from skewless.contract.errors import RequestError, SkewlessError

if TYPE_CHECKING:
    import pyarrow as pa

    from skewless.contract.keys import KeyValue
    from skewless.contract.plan import FeaturePlan, View
    from skewless.contract.rows import ViewRead
    from skewless.contract.windows.view import WindowView
    from skewless.infra.offline.join import Order
    from skewless.infra.plans.needed_views import NeededViews
    from skewless.project import Project

Name = Annotated[str, typer.Argument(metavar="VIEW|SERVICE", help="Name of a feature view or a feature service.")]
Key = Annotated[list[str] | None, typer.Option("--key", metavar="NAME=VALUE", help="One key; once for each.")]
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="TIME", help="Show beside it what the log says of this moment (ISO 8601, or us)."),
]
_SIDES = {"knowledge": "known then", "event_time": "event time"}


def get(name: Name, *, key: Key = None, as_of: AsOf = None, repo: Repo = Path(), as_json: Json = False) -> None:
    """Show an entity's online values with their status, age and origin."""
    with answering(as_json=as_json) as output:
        project = open_project(output, repo)
        plan = _plan(project.needed, name)
        keys = _keys(plan, key or [])
        asked = None if as_of is None else _moment(as_of)
        _show(project, plan, keys, asked, output)


def _plan(needed: NeededViews, name: str) -> FeaturePlan:
    """Return the views that a name stands for: a view, a version that only models need (``NAME@HASH``), a service."""
    plan, label = needed.plan, needed.label
    if name in map(label, plan.all_views):
        views = tuple(view for view in plan.views if label(view) == name)
        windows = tuple(view for view in plan.windows if label(view) == name)
        return replace(plan, views=views, windows=windows, request=())
    if name in {service.name for service in plan.services}:
        return replace(plan.only(name), request=())
    known = ", ".join([label(view) for view in plan.all_views] + [service.name for service in plan.services])
    raise RequestError("name", "is neither a feature view nor a service", value=name, fix=f"use one of {known}")


def _keys(plan: FeaturePlan, given: Sequence[str]) -> dict[str, KeyValue | None]:
    from skewless.contract.keys import parse_key

    pairs = dict(item.partition("=")[::2] for item in given)
    wanted = {column.name: column for column in plan.join_keys}
    if pairs.keys() != wanted.keys():
        fix = "give " + " ".join(f"--key {name}=VALUE" for name in wanted)
        raise RequestError("option --key", "does not name the entity", value=", ".join(given) or None, fix=fix)
    return {name: parse_key(column, pairs[name]) for name, column in wanted.items()}


def _moment(text: str) -> int:
    from skewless.contract.columns import Column
    from skewless.contract.dtypes import DType
    from skewless.contract.request import parse_field

    column = Column(name="--as-of", dtype=DType.TIMESTAMP)
    try:
        moment = parse_field(column, int(text) if text.lstrip("-").isdigit() else text)
    except SkewlessError as error:
        raise RequestError("option --as-of", "is not a time", value=text, fix=error.fix) from error
    return int(str(moment))


def _show(
    project: Project, plan: FeaturePlan, keys: Mapping[str, KeyValue | None], as_of: int | None, output: Output
) -> None:
    from skewless.contract.request import Ask
    from skewless.infra.online.features import FeatureReader
    from skewless.infra.online.guard import Guard

    ask = Ask(keys={name: [value] for name, value in keys.items()}, fields={})
    reader = FeatureReader(plan, project.online_reader, guard=Guard.of_runs(project.state, [plan]))
    now = project.clock.now_us()
    online, watermarks = reader.views(ask, now // 1_000 * 1_000)
    bodies, parts = [], []
    for view in plan.all_views:
        sides = {"online": _body(view, online[view.name], now, watermarks[view.name])}
        if as_of is not None:
            sides |= {order: _offline(project, view, keys, order, as_of) for order in _SIDES}
        bodies.append({"view": view.name, "keys": {column.name: keys[column.name] for column in view.keys}, **sides})
        parts.append(_table(view, sides))
    output.answer({"t_us": now, "as_of_us": as_of, "views": bodies}, *parts)


def _offline(
    project: Project, view: View | WindowView, keys: Mapping[str, KeyValue | None], order: str, t: int
) -> dict[str, Any]:
    from skewless.contract.windows.view import WindowView

    mode: Order = "event_time" if order == "event_time" else "knowledge"
    entity = _entity(view, keys, t)
    if isinstance(view, WindowView):
        return _body(view, project.views.read_window(view, entity, mode), t)
    return _body(view, project.views.read_view(view, entity, mode), t)


def _entity(view: View | WindowView, keys: Mapping[str, KeyValue | None], t: int) -> pa.Table:
    import pyarrow as pa

    from skewless.contract.dtypes import DType

    kinds = {DType.INT32: pa.int32(), DType.INT64: pa.int64(), DType.STRING: pa.string()}
    columns = {column.name: pa.array([keys[column.name]], kinds[column.dtype]) for column in view.keys}
    return pa.table({**columns, "__t": pa.array([t], pa.int64())})


def _body(view: View | WindowView, read: ViewRead, t: int, watermark_us: int = 0) -> dict[str, Any]:
    """Return one row that was read as plain values.

    Args:
        watermark_us: up to when all that had arrived by then was in what was read; 0: unknown, or read from the log.
    """
    import numpy as np

    from skewless.contract.clock import from_us
    from skewless.contract.rows import NO_TIME
    from skewless.contract.status import Status
    from skewless.contract.vector import view_status

    versions = read.versions
    event, created = int(versions.event_ts[0]), int(versions.created_ts[0])
    origin = int(versions.seq[0]) >= 0
    return {
        "status": Status(int(view_status(read, np.array([t], dtype=np.int64), view.ttl_us)[0])).name,
        "age_s": (t - event) / 1_000_000 if origin else None,
        "watermark_age_s": max(t - watermark_us, 0) / 1_000_000 if watermark_us else None,
        "event_time": from_us(event).isoformat() if origin else None,
        "created_time": from_us(created).isoformat() if origin and created != NO_TIME else None,
        "run": int(versions.run_id[0]) if origin else None,
        "position": int(versions.seq[0]) if origin else None,
        "features": {
            column.name: None if read.nulls[column.name][0] else _value(read.values[column.name][0])
            for column in view.features
        },
    }


def _value(value: Any) -> object:  # noqa: ANN401 - numpy's scalars, text, bytes
    if isinstance(value, bytes):
        return value.hex()
    return value if isinstance(value, str) else value.item()


def _table(view: View | WindowView, sides: Mapping[str, Mapping[str, Any]]) -> Any:  # noqa: ANN401 - rich is not loaded here
    facts = ("status", "age_s", "watermark_age_s", "event_time", "created_time", "run", "position")
    rows = [(fact, *(_text(side[fact]) for side in sides.values())) for fact in facts]
    rows += [
        (column.name, *(_text(side["features"][column.name]) for side in sides.values())) for column in view.features
    ]
    return table(view.name, ("", *(_SIDES.get(name, "now online") for name in sides)), rows)


def _text(value: object) -> str | None:
    return None if value is None else value if isinstance(value, str) else repr(value)
