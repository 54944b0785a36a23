"""Compare two plans, or two sets of models: the changes that an apply would make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from skewless.contract.differences import Difference, find_differences, order_differences
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
    """A definition that was added, changed or removed.

    Args:
        kind: ``view``, ``windowed view``, ``event source``, ``request field``, ``transform``, ``service`` or
            ``model``; ``project``: its name, or the order of its definitions; ``registry``: Feast's registry.
        details: the differences; of an added or removed definition, the whole definition.
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
    """Return the changes of the project, then of its views and so on; without an old plan everything is added."""
    # Compare kind by kind, so that a view and a service may have one name.
    changes: list[Change] = []
    for kind, field in _KINDS:
        before = _by_name(getattr(old, field)) if old else {}
        changes += compare_named(kind, before, _by_name(getattr(new, field)))
    own = _project_differences(old, new) if old else ()
    return [Change(action="change", kind="project", name=new.project, details=own), *changes] if own else changes


def compare_models(old: Iterable[ModelSpec], new: Iterable[ModelSpec]) -> list[Change]:
    """Return the added, changed and removed models; their order does not matter."""
    return compare_named("model", _by_name(old), _by_name(new))


def compare_named(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return the added, changed and removed items of two mappings."""
    changes = []
    for name in [*after, *(name for name in before if name not in after)]:
        change = _compare(kind, name, before.get(name), after.get(name))
        changes += [change] if change else []
    return changes


def _compare(kind: str, name: str, old: object, new: object) -> Change | None:
    if old is None:
        difference = Difference(path=(), action="add", after=new)
        return Change(action="add", kind=kind, name=name, details=(difference,))
    if new is None:
        difference = Difference(path=(), action="remove", before=old)
        return Change(action="remove", kind=kind, name=name, details=(difference,))
    details = tuple(find_differences(old, new))
    return Change(action="change", kind=kind, name=name, details=details) if details else None


def _project_differences(old: FeaturePlan, new: FeaturePlan) -> tuple[Difference, ...]:
    details = list(find_differences(old.project, new.project, ("project",)))
    for _, field in _KINDS:
        details += order_differences(_by_name(getattr(old, field)), _by_name(getattr(new, field)), (field,))
    return tuple(details)


def _by_name(items: Iterable[Any] | Sequence[Any]) -> dict[str, Any]:
    return {item.name: item for item in items}
