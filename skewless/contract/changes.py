"""What applying new definitions would change; pure comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from skewless.contract.differences import Difference, differences, order_of
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec

_KINDS = (
    ("view", "views"),
    ("windowed view", "windows"),
    ("event source", "sources"),
    ("request field", "request"),
    ("transform", "transforms"),
    ("service", "services"),
)

Action = Literal["add", "change", "remove"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A thing that two sets of definitions have differently.

    Args:
        kind: ``view``, ``windowed view``, ``event source``, ``request field``, ``transform``, ``service`` or
            ``model``; ``project``: its name or the order of its things; ``registry``: of Feast.
        details: what differs in it; of a thing that came or went, the thing itself.
    """

    action: Action
    kind: str
    name: str
    details: tuple[Difference, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        details = [item.as_dict() for item in self.details]
        return {"action": self.action, "kind": self.kind, "name": self.name, "details": details}


def compare_plans(old: FeaturePlan | None, new: FeaturePlan) -> list[Change]:
    """Return the differences, the project's own first, then views; everything is new where there was no plan."""
    changes: list[Change] = []
    for kind, field in _KINDS:
        before = _by_name(getattr(old, field)) if old else {}
        changes += compare_named(kind, before, _by_name(getattr(new, field)))
    own = _own(old, new) if old else ()
    return [Change(action="change", kind="project", name=new.project, details=own), *changes] if own else changes


def compare_models(old: Iterable[ModelSpec], new: Iterable[ModelSpec]) -> list[Change]:
    """Return which models came, changed or went; their order does not count."""
    return compare_named("model", _by_name(old), _by_name(new))


def compare_named(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return which named things came, changed or went."""
    changes = []
    for name in [*after, *(name for name in before if name not in after)]:
        found = _change(kind, name, before.get(name), after.get(name))
        changes += [found] if found else []
    return changes


def _change(kind: str, name: str, old: object, new: object) -> Change | None:
    if old is None:
        whole = Difference(path=(), action="add", after=new)
        return Change(action="add", kind=kind, name=name, details=(whole,))
    if new is None:
        whole = Difference(path=(), action="remove", before=old)
        return Change(action="remove", kind=kind, name=name, details=(whole,))
    found = tuple(differences(old, new))
    return Change(action="change", kind=kind, name=name, details=found) if found else None


def _own(old: FeaturePlan, new: FeaturePlan) -> tuple[Difference, ...]:
    found = list(differences(old.project, new.project, ("project",)))
    for _, field in _KINDS:
        found += order_of(_by_name(getattr(old, field)), _by_name(getattr(new, field)), (field,))
    return tuple(found)


def _by_name(items: Iterable[Any] | Sequence[Any]) -> dict[str, Any]:
    return {item.name: item for item in items}
