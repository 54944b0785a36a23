"""What applying a new plan would change, and what it would break; pure comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from skewless.plan import FeaturePlan

_SHOWN = 60

Action = Literal["add", "change", "remove"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """One difference between two plans.

    Args:
        kind: ``view``, ``transform``, ``service`` or ``model``.
        detail: what differs, for people.
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
    for kind, field in (("view", "views"), ("transform", "transforms"), ("service", "services")):
        before = {item.name: item for item in getattr(old, field)} if old else {}
        changes += compare_named(kind, before, {item.name: item for item in getattr(new, field)})
    return changes


def compare_named(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return which named things came, changed or went."""
    changes = []
    for name in [*after, *(name for name in before if name not in after)]:
        old, new = before.get(name), after.get(name)
        if old is None:
            changes.append(Change(action="add", kind=kind, name=name))
        elif new is None:
            changes.append(Change(action="remove", kind=kind, name=name))
        elif old != new:
            changes.append(Change(action="change", kind=kind, name=name, detail=_detail(old, new)))
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
    current = {view.name: view.hash for view in new.views}
    lost = []
    for view in pinned.views:
        if view.name not in current:
            lost.append(f"view {view.name!r} is gone: its rows are no longer refreshed")
        elif current[view.name] != view.hash:
            lost.append(f"view {view.name!r} changes from {view.hash} to {current[view.name]}: train again")
    return lost


def _detail(old: object, new: object) -> str:
    before, after = vars(old), vars(new)
    fields = [name for name in after if not name.startswith("_") and before.get(name) != after[name] and name != "hash"]
    return "; ".join(f"{name}: {_short(before.get(name))} -> {_short(after[name])}" for name in fields)


def _short(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(getattr(item, "label", getattr(item, "name", str(item))) for item in value) + "]"
    text = str(value)
    return text if len(text) <= _SHOWN else f"{len(text)} characters"
