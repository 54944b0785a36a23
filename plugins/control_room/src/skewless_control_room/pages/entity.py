"""One entity: what do we know of this customer, card or shop? And how to erase it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace

from skewless.contract.errors import RequestError
from skewless.contract.plain_record import PlainRecord
from skewless.contract.plan import View
from skewless.contract.render import count_text
from skewless.contract.windows.view import WindowView
from skewless.infra.records.predictions.search import PredictionList
from skewless.operations.data.entity_values import Entity, EntityRow, read_logged, read_online, select_views
from skewless.operations.predictions.predictions import LoggedPrediction, list_of_models, parse_entity, with_outcomes
from skewless.project import Project
from skewless_control_room.actions import Action, Values
from skewless_control_room.page import Known, Page, Part, Query, Unknown, read_part
from skewless_control_room.pages.predictions import cut_inputs

VIEWS, PREDICTIONS = 5, 20


@dataclass(frozen=True, kw_only=True)
class FeatureOnBothSides(PlainRecord):
    """A feature of an entity.

    Args:
        online, logged: values; None: null, or not known.
        is_different: whether both are known and differ.
    """

    feature: str
    online: object
    logged: object
    is_different: bool


@dataclass(frozen=True, kw_only=True)
class ViewOfEntity(PlainRecord):
    """An entity in one view.

    Args:
        is_windowed: its features are of windows over events.
        online: in the online store.
        logged: as the log knows it now.
        features: in the order of the view.
        is_different: whether a feature or the status differs; None: not known.
    """

    view: str
    is_windowed: bool
    online: Part[EntityRow]
    logged: Part[EntityRow]
    features: list[FeatureOnBothSides]
    is_different: bool | None


@dataclass(frozen=True, kw_only=True)
class EntityViews(PlainRecord):
    """The views of an entity.

    Args:
        at_us: time at which both sides were read, UTC microseconds.
        skipped: number of views before these.
        total: number of views that have its keys.
    """

    at_us: int
    views: list[ViewOfEntity]
    skipped: int
    total: int


@dataclass(frozen=True, kw_only=True)
class PredictionsOfEntity(PlainRecord):
    """The last predictions of an entity.

    Args:
        found: how much of the log was read.
        rows: with their outcomes.
        outcomes: why outcomes are not known; empty: they were read.
    """

    found: PredictionList
    rows: list[LoggedPrediction]
    outcomes: str = ""


@dataclass(frozen=True, kw_only=True)
class EntityPage(PlainRecord):
    """The answer.

    Args:
        keys: join key -> value as text.
        get_options, erase_options: the keys as options of ``skewless get`` and ``skewless erase``.
        key_text: their values, to type as a confirmation.
        text: the keys as JSON, for the action.
        views: online, and in the log.
        predictions: the last ones.
    """

    keys: Mapping[str, str]
    get_options: str
    erase_options: str
    key_text: str
    text: str
    views: Part[EntityViews]
    predictions: Part[PredictionsOfEntity]


def read_entity_page(project: Project, query: Query) -> EntityPage:
    """Return the values and predictions of an entity.

    Raises:
        RequestError: a key is missing, unknown or not of its type.
    """
    keys = _read_keys(query)
    parsed = read_part(lambda: parse_entity(project, keys))
    if isinstance(parsed, Unknown):
        views: Part[EntityViews] = parsed
        predictions: Part[PredictionsOfEntity] = parsed
    else:
        entity: Entity = {column.name: value for column, value in parsed.value}
        skip = query.number("skip", 0, most=10_000)
        views = read_part(lambda: _read_views(project, entity, skip))
        predictions = read_part(lambda: _read_predictions(project, query, keys))
    return EntityPage(
        keys=keys,
        get_options=_options("--key", keys),
        erase_options=_options("--entity", keys),
        key_text=", ".join(keys.values()),
        text=json.dumps(keys, sort_keys=True),
        views=views,
        predictions=predictions,
    )


def _read_keys(query: Query) -> dict[str, str]:
    keys = {name: query.text(name) for name in query.path["entity"].split(",")}
    missing = [name for name in keys if name not in query.values]
    if missing:
        fix = f"write {missing[0]}=VALUE into the query of the address"
        raise RequestError(f"join key {missing[0]!r}", "has no value", fix=fix)
    return keys


def _options(option: str, keys: Mapping[str, str]) -> str:
    return " ".join(f"{option} {shlex.quote(f'{name}={value}')}" for name, value in keys.items())


def _read_views(project: Project, entity: Entity, skip: int) -> EntityViews:
    # One time for both sides, so that ages and windows are comparable; a server evaluates at whole milliseconds.
    now = project.clock.now_us() // 1_000 * 1_000
    plan = select_views(project.needed, entity)
    shown = plan.all_views[skip : skip + VIEWS]
    names = {view.name for view in shown}
    part = replace(
        plan,
        views=tuple(view for view in plan.views if view.name in names),
        windows=tuple(view for view in plan.windows if view.name in names),
    )
    online = read_part(lambda: read_online(project, part, entity, now))
    views = [_compare(project, view, entity, now, online) for view in shown]
    return EntityViews(at_us=now, views=views, skipped=skip, total=len(plan.all_views))


def _compare(
    project: Project, view: View | WindowView, entity: Entity, now: int, rows: Part[dict[str, EntityRow]]
) -> ViewOfEntity:
    online: Part[EntityRow] = rows if isinstance(rows, Unknown) else Known(value=rows.value[view.name])
    logged = read_part(lambda: read_logged(project, view, entity, "knowledge", now))
    left, right = (None if isinstance(side, Unknown) else side.value for side in (online, logged))
    features = []
    for column in view.features:
        values = [None if row is None else row.features[column.name] for row in (left, right)]
        is_known = left is not None and right is not None
        features.append(
            FeatureOnBothSides(
                feature=column.name,
                online=values[0],
                logged=values[1],
                is_different=is_known and not _is_same(values[0], values[1]),
            )
        )
    is_different = None
    if left is not None and right is not None:
        is_different = any(each.is_different for each in features) or left.position != right.position
    return ViewOfEntity(
        view=view.name,
        is_windowed=isinstance(view, WindowView),
        online=online,
        logged=logged,
        features=features,
        is_different=is_different,
    )


def _is_same(left: object, right: object) -> bool:
    """Return whether two values have equal bits, as far as a reader can see: a NaN equals a NaN."""
    return repr(left) == repr(right)


def _read_predictions(project: Project, query: Query, keys: Mapping[str, str]) -> PredictionsOfEntity:
    found = list_of_models(project, query.models, keys=keys, limit=PREDICTIONS, page=query.text("page") or None)
    outcomes = read_part(lambda: with_outcomes(project, found.rows))
    short = cut_inputs(found)
    if isinstance(outcomes, Unknown):
        rows = [LoggedPrediction(prediction=row, outcome=None) for row in short.rows]
        return PredictionsOfEntity(found=short, rows=rows, outcomes=outcomes.unknown)
    known = zip(short.rows, outcomes.value, strict=True)
    rows = [LoggedPrediction(prediction=row, outcome=item.outcome) for row, item in known]
    return PredictionsOfEntity(found=short, rows=rows)


def _entity_of(values: Values) -> dict[str, str]:
    """Return the keys of an action.

    Raises:
        RequestError: the reader has confirmed other keys.
    """
    try:
        keys = json.loads(values["entity"])
    except ValueError:
        keys = None
    if not isinstance(keys, dict) or not keys or not all(isinstance(value, str) for value in keys.values()):
        raise RequestError("entity", "has no keys", value=values["entity"], fix="open the page of the entity")
    if values["key"] != ", ".join(keys.values()) or values["options"] != _options("--entity", keys):
        raise RequestError("entity", "does not have the key that you confirm", fix="open the page of the entity")
    return keys


def _preview(project: Project, values: Values) -> list[str]:
    keys = _entity_of(values)
    receipt = project.erase(keys, dry_run=True)
    named = ", ".join(f"{name} = {value}" for name, value in keys.items())
    return [
        f"Everything that this project has stored about {named} is erased. It cannot be undone.",
        f"{count_text(receipt.rows, 'row')} of views and {count_text(receipt.events, 'event')} lose their values.",
        f"{count_text(receipt.predictions, 'prediction')} and {count_text(receipt.outcomes, 'outcome')} are removed.",
        f"{count_text(receipt.lists, 'version')} of lists lose its value.",
        f"{count_text(receipt.messages, 'message')} of Redis streams are removed.",
        "Rows and states in the online store are deleted. Windowed views with its events are built again.",
        *(f"Not covered: {each}." for each in receipt.not_covered),
    ]


def _erase(project: Project, values: Values) -> str:
    receipt = project.erase(_entity_of(values))
    return (
        f"Erased: {count_text(receipt.rows, 'row')}, {count_text(receipt.events, 'event')},"
        f" {count_text(receipt.predictions, 'prediction')}, {count_text(receipt.outcomes, 'outcome')},"
        f" {receipt.online:,} online. Receipt: digest {receipt.digest}, salt {receipt.salt}. Keep both: with the keys"
        f" they prove this erasure.{f' A later run failed: {receipt.error}' if receipt.error else ''}"
    )


PAGE = Page(
    path="/entities/{entity}",
    question="What do we know of this {entity}?",
    template="entity.html",
    is_personal=True,
    read=read_entity_page,
)
ACTIONS = (
    Action(
        name="erase",
        title="Erase this entity",
        right="admin",
        fields=("entity", "key", "options"),
        preview=_preview,
        run=_erase,
        command="skewless erase {options} --yes",
        word="{key}",
    ),
)
