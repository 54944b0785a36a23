"""Random edits of the definitions, as pure functions: definitions in, definitions and what was done out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import TypeVar

from tests.nightly.second_week.data import LABELS, TABLE
from tests.nightly.second_week.declared import (
    Aggregate,
    Declared,
    Formula,
    Latest,
    Service,
    Transform,
    View,
    Window,
    feature_names,
    single_names,
)
from tests.nightly.second_week.project import DAY_S, FACTS, HOUR_S, MINUTE_S

Edit = Callable[["Editor", Declared], tuple[Declared, str]]
T = TypeVar("T")
_LENGTHS = (10 * MINUTE_S, HOUR_S, 6 * HOUR_S, DAY_S, 7 * DAY_S, 30 * DAY_S, 90 * DAY_S)
_HOPS = (0, 0, 0, 600, 1_800, 7_200)
_NUMBERS = ("count", "sum", "mean", "min", "max", "first", "last", "std", "var", "count_distinct")
_FORMULAS: tuple[Formula, ...] = ("ratio", "shift", "missing")
_TEXTS = ("count", "count_distinct")
_TIMES = ("first", "last", "min", "max")


class Editor:
    """Makes edits; its chance and its names are those of one test.

    Args:
        chance: of all choices.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._numbers = count(1)

    def name(self, stem: str) -> str:
        return f"{stem}_{next(self._numbers)}"

    def pick(self, items: Sequence[T]) -> T:
        return self._chance.choice(items)

    def feature_added(self, declared: Declared) -> tuple[Declared, str]:
        view = self.pick(declared.windows)
        item = self._aggregate(view)
        at = self._chance.randrange(len(view.aggregates) + 1)
        fresh = (*view.aggregates[:at], item, *view.aggregates[at:])
        return _with(declared, view, replace(view, aggregates=fresh)), f"{view.name}: + {_said(item)}"

    def sequence_added(self, declared: Declared) -> tuple[Declared, str]:
        """The first or last values of a column, as one feature each."""
        view = self.pick(declared.windows)
        column = self.pick(sorted(name for name, kind in view.source.columns if kind != "string"))
        item = Aggregate(
            name=self.name("sequence"),
            column=column,
            function=self.pick(("first", "last")),
            window_s=self.pick(_LENGTHS),
            k=self.pick([1, 2, 5, 32]),
        )
        declared = _with(declared, view, replace(view, aggregates=(*view.aggregates, item)))
        return declared, f"{view.name}: + {_said(item)}"

    def recency_added(self, declared: Declared) -> tuple[Declared, str]:
        """A feature of the event's own time, and a transform that tells how long ago that was."""
        view = self.pick(declared.windows)
        name = self.name("seen")
        item = Aggregate(name=name, column=view.source.time, function=self.pick(_TIMES), window_s=self.pick(_LENGTHS))
        declared = _with(declared, view, replace(view, aggregates=(*view.aggregates, item)))
        transform = Transform(
            name=self.name("since"), view=view.name, feature=name, formula="age", number=0.0, output=self.name("age")
        )
        return self._served(declared, transform), f"{view.name}: + {_said(item)}, + transform {transform.name}"

    def feature_changed(self, declared: Declared) -> tuple[Declared, str]:
        view = self.pick(declared.windows)
        old = self.pick([item for item in view.aggregates if not item.k])
        new = replace(self._aggregate(view), name=old.name)
        items = tuple(new if item is old else item for item in view.aggregates)
        return _with(declared, view, replace(view, aggregates=items)), f"{view.name}: {_said(old)} -> {_said(new)}"

    def window_changed(self, declared: Declared) -> tuple[Declared, str]:
        view = self.pick(declared.windows)
        old = self.pick(view.aggregates)
        new = replace(old, window_s=self.pick([length for length in _LENGTHS if length != old.window_s]), hop_s=0)
        items = tuple(new if item is old else item for item in view.aggregates)
        return _with(declared, view, replace(view, aggregates=items)), f"{view.name}: {_said(old)} -> {_said(new)}"

    def feature_renamed(self, declared: Declared) -> tuple[Declared, str]:
        view = self.pick(declared.views)
        old, new = self.pick(single_names(view)), self.name("named")
        declared = _with(declared, view, _renamed(view, old, new))
        return _follow(declared, view.name, old, new), f"{view.name}: {old} is named {new}"

    def feature_dropped(self, declared: Declared) -> tuple[Declared, str]:
        views = [view for view in declared.views if len(single_names(view)) > 1]
        view = self.pick(views)
        old = self.pick(single_names(view))
        fresh = _without(view, old)
        declared = _with(declared, view, fresh)
        return _follow(declared, view.name, old, self.pick(single_names(fresh))), f"{view.name}: - {old}"

    def fact_added(self, declared: Declared) -> tuple[Declared, str]:
        view = self.pick(declared.latest)
        left = [column for column in FACTS if column not in dict(view.features).values()]
        if not left:
            return self.ttl_changed(declared)
        column = self.pick(left)
        name = column if column not in feature_names(view) else self.name(column)
        fresh = replace(view, features=(*view.features, (name, column)))
        return _with(declared, view, fresh), f"{view.name}: + {name}"

    def ttl_changed(self, declared: Declared) -> tuple[Declared, str]:
        view = self.pick(declared.latest)
        ttl = self.pick([length for length in (0, DAY_S, 2 * DAY_S, 3 * DAY_S) if length != view.ttl_s])
        return _with(declared, view, replace(view, ttl_s=ttl)), f"{view.name}: ttl {view.ttl_s} s -> {ttl} s"

    def view_added(self, declared: Declared) -> tuple[Declared, str]:
        source = self.pick(declared.sources)
        keys = [key for key in ("user", "shop") if key in dict(source.columns)]
        number = {"clicks": "amount", "visits": "dwell"}[source.name] if self._chance.random() < 0.7 else ""
        view = Window(name=self.name("view"), source=source, key=self.pick(keys), aggregates=(), number=number)
        view = replace(view, threshold=self._threshold(), factor=self.pick([0.1, 2.5, -3.0]))
        view = replace(view, aggregates=tuple(self._aggregate(view) for _ in range(self.pick([1, 2, 3]))))
        declared = replace(declared, windows=(*declared.windows, view))
        return self._in_services(declared, view.name), f"+ view {view.name} of {source.name} by {view.key}"

    def latest_added(self, declared: Declared) -> tuple[Declared, str]:
        columns = self._chance.sample(sorted(FACTS), 2)
        view = Latest(
            name=self.name("facts"), table=TABLE, key="user", features=tuple((name, name) for name in columns), ttl_s=0
        )
        declared = replace(declared, latest=(*declared.latest, view))
        return self._in_services(declared, view.name), f"+ view {view.name} of {', '.join(columns)}"

    def view_renamed(self, declared: Declared) -> tuple[Declared, str]:
        view = self.pick(declared.views)
        name = self.name("again")
        return _with(declared, view, replace(view, name=name)), f"view {view.name} is named {name}"

    def view_dropped(self, declared: Declared) -> tuple[Declared, str]:
        for view in self._chance.sample(declared.views, len(declared.views)):
            fresh = _dropped(declared, view.name)
            if all(_covers(fresh, service) for service in fresh.services) and fresh.windows and fresh.latest:
                return fresh, f"- view {view.name}"
        return self.view_added(declared)

    def view_changed(self, declared: Declared) -> tuple[Declared, str]:
        """Another function, filter or scale; the features keep their names."""
        view = self.pick([view for view in declared.windows if view.number] or declared.windows)
        if not view.number:
            return self.feature_changed(declared)
        filters = ["", "big", *(["flag"] if "flag" in dict(view.source.columns) else [])]
        fresh = {
            "where": replace(view, where=self.pick([name for name in filters if name != view.where])),
            "function": replace(view, threshold=self._threshold(), factor=self.pick([0.3, 7.0, -0.5])),
            "scale": replace(view, scale=self.pick([scale for scale in (0, 1, 3, 6) if scale != view.scale])),
        }
        how = self.pick(sorted(fresh))
        return _with(declared, view, fresh[how]), f"{view.name}: another {how}"

    def transform_added(self, declared: Declared) -> tuple[Declared, str]:
        view = self.pick(declared.views)
        transform = Transform(
            name=self.name("mix"),
            view=view.name,
            feature=self.pick(feature_names(view)),
            formula=self.pick(_FORMULAS),
            number=self.pick([0.5, 3.25]),
            output=self.name("out"),
        )
        return self._served(declared, transform), f"+ transform {transform.name} of {view.name}"

    def transform_changed(self, declared: Declared) -> tuple[Declared, str]:
        plain = [item for item in declared.transforms if item.formula != "age"]
        if not plain:
            return self.transform_added(declared)
        old = self.pick(plain)
        how = self.pick(["number", "output", "formula"])
        new = {
            "number": replace(old, number=old.number + 1.25),
            "output": replace(old, output=self.name("out")),
            "formula": replace(old, formula="shift" if old.formula == "ratio" else "ratio"),
        }[how]
        items = tuple(new if item is old else item for item in declared.transforms)
        return replace(declared, transforms=items), f"transform {old.name}: another {how}"

    def transform_dropped(self, declared: Declared) -> tuple[Declared, str]:
        if not declared.transforms:
            return self.transform_added(declared)
        old = self.pick(declared.transforms)
        return _without_transforms(declared, [old.name]), f"- transform {old.name}"

    def label_changed(self, declared: Declared) -> tuple[Declared, str]:
        model = self.pick(declared.models)
        label = self.pick([name for name in LABELS if name != model.label])
        models = tuple(replace(model, label=label) if item is model else item for item in declared.models)
        return replace(declared, models=models), f"{model.name}: label {model.label} -> {label}"

    def _aggregate(self, view: Window) -> Aggregate:
        columns = {**dict(view.source.columns), **({"big": "bool", "net": "float64"} if view.number else {})}
        column = self.pick(sorted(columns))
        function = self.pick(_TEXTS if columns[column] == "string" else _NUMBERS)
        length = self.pick(_LENGTHS)
        hop = self.pick(_HOPS) if length > 7_200 else 0
        return Aggregate(
            name=self.name(f"{function}_{column}"), column=column, function=function, window_s=length, hop_s=hop
        )

    def _threshold(self) -> float:
        return self.pick([15.0, 16.0, 50.0, 51.0, 52.5])

    def _in_services(self, declared: Declared, view: str) -> Declared:
        chosen = self.pick([(0,), (1,), (0, 1)])
        services = tuple(
            replace(service, views=(*service.views, view)) if i in chosen else service
            for i, service in enumerate(declared.services)
        )
        return replace(declared, services=services)

    def _served(self, declared: Declared, transform: Transform) -> Declared:
        """Add a transform to the services that show what it reads."""
        services = tuple(
            replace(service, transforms=(*service.transforms, transform.name))
            if transform.view in service.views
            else service
            for service in declared.services
        )
        return replace(declared, transforms=(*declared.transforms, transform), services=services)


def _said(item: Aggregate) -> str:
    hop = f" by {item.hop_s} s" if item.hop_s else ""
    k = f", {item.k}" if item.k else ""
    return f"{item.name} = {item.function}({item.column}{k}) over {item.window_s} s{hop}"


def _with(declared: Declared, old: View, new: View) -> Declared:
    """Put a view in the place of another one; services and transforms follow its name."""
    return replace(
        declared,
        windows=tuple(new if view is old else view for view in declared.windows),  # type: ignore[misc]
        latest=tuple(new if view is old else view for view in declared.latest),  # type: ignore[misc]
        services=tuple(
            replace(service, views=tuple(new.name if name == old.name else name for name in service.views))
            for service in declared.services
        ),
        transforms=tuple(
            replace(item, view=new.name) if item.view == old.name else item for item in declared.transforms
        ),
    )


def _renamed(view: View, old: str, new: str) -> View:
    if isinstance(view, Window):
        items = tuple(replace(item, name=new) if item.name == old else item for item in view.aggregates)
        return replace(view, aggregates=items)
    return replace(view, features=tuple((new if name == old else name, column) for name, column in view.features))


def _without(view: View, name: str) -> View:
    if isinstance(view, Window):
        return replace(view, aggregates=tuple(item for item in view.aggregates if item.name != name))
    return replace(view, features=tuple(item for item in view.features if item[0] != name))


def _follow(declared: Declared, view: str, old: str, new: str) -> Declared:
    """Let transforms that read a feature read another one."""
    return replace(
        declared,
        transforms=tuple(
            replace(item, feature=new) if (item.view, item.feature) == (view, old) else item
            for item in declared.transforms
        ),
    )


def _without_transforms(declared: Declared, names: Sequence[str]) -> Declared:
    services = tuple(
        replace(service, transforms=tuple(name for name in service.transforms if name not in names))
        for service in declared.services
    )
    left = tuple(item for item in declared.transforms if item.name not in names)
    return replace(declared, transforms=left, services=services)


def _dropped(declared: Declared, name: str) -> Declared:
    declared = _without_transforms(declared, [item.name for item in declared.transforms if item.view == name])
    services = tuple(
        replace(service, views=tuple(view for view in service.views if view != name)) for service in declared.services
    )
    return replace(
        declared,
        windows=tuple(view for view in declared.windows if view.name != name),
        latest=tuple(view for view in declared.latest if view.name != name),
        services=services,
    )


def _covers(declared: Declared, service: Service) -> bool:
    """Say whether a service still needs both keys, so that what callers send never changes."""
    return {declared.view(name).key for name in service.views} == {"user", "shop"}
