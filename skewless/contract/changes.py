"""Compare frozen values field by field, and two plans or two sets of models: the changes that an apply would make.

Named items are compared by name, mappings by key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from skewless.contract.decisions import DecisionStream
from skewless.contract.plain_record import plain_value
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec

_MAX_POSITIONS = 3  # changed positions of a list of plain values; with more, report the whole list as changed

Path = tuple[str, ...]
Action = Literal["add", "change", "remove", "order"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference inside a value.

    Args:
        path: fields, keys and names that lead to it; empty: the whole value.
        before, after: the values, None if there is none; for ``order`` the names of the common items, in order.
    """

    path: Path
    action: Action
    before: object = None
    after: object = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; durations are microseconds."""
        return {name: plain_value(value) for name, value in vars(self).items()}


def find_differences(before: object, after: object, path: Path = ()) -> Iterator[Difference]:
    """Yield the differences of two values, in the order of their fields.

    Items of a sequence are matched by their label, their name or their value; if these are not unique, by position.
    The order of a mapping does not matter.

    >>> [(item.path, item.before, item.after) for item in find_differences({"a": {"b": 1}}, {"a": {"b": 2}})]
    [(('a', 'b'), 1, 2)]
    """
    if type(before) is type(after) and is_dataclass(before):
        for item in fields(before):
            yield from find_differences(getattr(before, item.name), getattr(after, item.name), (*path, item.name))
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _compare_by_key(_string_keys(before), _string_keys(after), path)
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple):
        yield from _compare_items(before, after, path)
    elif not _is_same(before, after):
        yield Difference(path=path, action="change", before=before, after=after)


def index_items(items: Sequence[Any]) -> dict[str, Any] | None:
    """Return items by their names; None: the names are not unique."""
    by_name = {_name(item): item for item in items}
    return by_name if len(by_name) == len(items) and None not in by_name else None  # type: ignore[return-value]


def order_differences(before: Mapping[str, object], after: Mapping[str, object], path: Path) -> list[Difference]:
    """Return the difference in the order of the common items; an empty list if the order is equal."""
    old, new = [name for name in before if name in after], [name for name in after if name in before]
    return [] if old == new else [Difference(path=path, action="order", before=old, after=new)]


def _compare_items(before: Sequence[Any], after: Sequence[Any], path: Path) -> Iterator[Difference]:
    old, new = index_items(before), index_items(after)
    if old is not None and new is not None:
        yield from _compare_by_key(old, new, path)
        yield from order_differences(old, new, path)
    else:
        yield from _compare_by_position(before, after, path)


def _compare_by_key(before: Mapping[str, Any], after: Mapping[str, Any], path: Path) -> Iterator[Difference]:
    for name, value in after.items():
        if name in before:
            yield from find_differences(before[name], value, (*path, name))
        else:
            yield Difference(path=(*path, name), action="add", after=value)
    for name, value in before.items():
        if name not in after:
            yield Difference(path=(*path, name), action="remove", before=value)


def _compare_by_position(before: Sequence[Any], after: Sequence[Any], path: Path) -> Iterator[Difference]:
    pairs = enumerate(zip(before, after, strict=False))
    positions = [details for i, pair in pairs if (details := list(find_differences(*pair, (*path, str(i)))))]
    if len(before) != len(after) or len(positions) > _MAX_POSITIONS:
        yield Difference(path=path, action="change", before=before, after=after)
    else:
        for details in positions:
            yield from details


def _name(item: object) -> str | None:
    if is_dataclass(item):
        name = getattr(item, "label", getattr(item, "name", None))
        return name if isinstance(name, str) else None
    return None if isinstance(item, list | tuple | Mapping) else str(item)


def _string_keys(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): item for name, item in value.items()}


def _is_same(before: object, after: object) -> bool:
    """Say whether two values are equal in type and value: 1, 1.0 and True differ, and NaN equals NaN."""
    if isinstance(before, str) and isinstance(after, str):
        return before == after
    if isinstance(before, float) and isinstance(after, float):
        return repr(before) == repr(after)
    return type(before) is type(after) and before == after


_KINDS = (
    ("view", "views"),
    ("windowed view", "windows"),
    ("event source", "sources"),
    ("request field", "request"),
    ("transform", "transforms"),
    ("service", "services"),
)

ChangeAction = Literal["add", "change", "remove"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """A definition that was added, changed or removed.

    Args:
        kind: ``view``, ``windowed view``, ``event source``, ``request field``, ``transform``, ``service``,
            ``model`` or ``decision stream``; ``project``: its name, or the order of its definitions; ``registry``:
            Feast's registry.
        details: the differences; of an added or removed definition, the whole definition.
    """

    action: ChangeAction
    kind: str
    name: str
    details: tuple[Difference, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**vars(self), "details": [item.as_dict() for item in self.details]}


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


def compare_decisions(old: Iterable[DecisionStream], new: Iterable[DecisionStream]) -> list[Change]:
    """Return the added, changed and removed decision streams; their order does not matter."""
    return compare_named("decision stream", _by_name(old), _by_name(new))


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
