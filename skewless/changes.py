"""What applying a new plan would change, and what it would break; pure comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from skewless.plan import FeaturePlan
from skewless.windows.view import WindowView

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_SHOWN = 60
_KINDS = (
    ("view", "views"),
    ("windowed view", "windows"),
    ("event source", "sources"),
    ("transform", "transforms"),
    ("service", "services"),
)

Action = Literal["add", "change", "remove"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One difference between two plans.

    Args:
        kind: ``view``, ``windowed view``, ``event source``, ``transform``, ``service`` or ``model``.
        detail: what differs and what has to be done about it, for people.
    """

    action: Action
    kind: str
    name: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Breakage:
    """A model that would stop being fed or would have to be trained again."""

    model: str
    version: str
    reason: str


def compare_plans(old: FeaturePlan | None, new: FeaturePlan) -> list[Change]:
    """Return the differences, views first; everything is new where there was no plan."""
    changes: list[Change] = []
    for kind, field in _KINDS:
        before = {item.name: item for item in getattr(old, field)} if old else {}
        changes += compare_named(kind, before, {item.name: item for item in getattr(new, field)})
    return changes


def compare_named(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return which named things came, changed or went."""
    changes = []
    for name in [*after, *(name for name in before if name not in after)]:
        old, new = before.get(name), after.get(name)
        if old is None:
            changes.append(Change(action="add", kind=kind, name=name, detail=_work(old, new)))
        elif new is None:
            changes.append(Change(action="remove", kind=kind, name=name))
        elif old != new:
            changes.append(Change(action="change", kind=kind, name=name, detail=_detail(old, new) + _work(old, new)))
    return changes


def find_breakages(new: FeaturePlan, pinned: Iterable[tuple[str, str, FeaturePlan]]) -> list[Breakage]:
    """Return which served models pin something that the new plan no longer has.

    Args:
        pinned: model, version and pinned plan of each served package.
    """
    return [
        Breakage(model=model, version=version, reason=reason)
        for model, version, plan in pinned
        for reason in _lost(plan, new)
    ]


def _lost(pinned: FeaturePlan, new: FeaturePlan) -> Sequence[str]:
    if pinned.project != new.project:
        return [f"project {pinned.project!r} becomes {new.project!r}: its rows have other keys"]
    current = {view.name: view.hash for view in new.all_views}
    lost = []
    for view in pinned.all_views:
        if view.name not in current:
            lost.append(f"view {view.name!r} is gone: its rows are no longer refreshed")
        elif current[view.name] != view.hash:
            lost.append(f"view {view.name!r} changes from {view.hash} to {current[view.name]}: train again")
    return lost


def _work(old: object, new: object) -> str:
    """Return what has to be run before a new or changed thing is served: a windowed view's state is built anew."""
    if not isinstance(new, WindowView) or (isinstance(old, WindowView) and old.hash == new.hash):
        return ""
    return f"{'; ' if old else ''}needs `skewless bootstrap {new.name}`"


def _detail(old: object, new: DataclassInstance) -> str:
    pairs = {item.name: (getattr(old, item.name, None), getattr(new, item.name)) for item in fields(new)}
    return "; ".join(f"{name}: {_difference(*pair)}" for name, pair in pairs.items() if pair[0] != pair[1])


def _difference(old: object, new: object) -> str:
    """Return both values, or what differs inside of them where they look the same."""
    shown = _short(old), _short(new)
    if shown[0] == shown[1] and isinstance(old, tuple) and isinstance(new, tuple):
        return f"other {_short(tuple(item for item in new if item not in old))}"
    return " -> ".join(shown)


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(getattr(item, "label", getattr(item, "name", str(item))) for item in value) + "]"
    text = str(value)
    return text if len(text) <= _SHOWN else f"{len(text)} characters"
