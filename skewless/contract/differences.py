"""What differs between two frozen values, down to the one field: named items by name, mappings by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import timedelta
from typing import Any, Literal

_MOST_PLACES = 3  # of a list of plain values; beyond, the list as a whole has changed

Path = tuple[str, ...]
Action = Literal["add", "change", "remove", "order"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference inside of a thing.

    Args:
        path: fields, keys and names that lead to it; empty: the thing as a whole.
        before, after: the values; of ``order`` the names of the items that stayed, in their order. None where there is
            none.
    """

    path: Path
    action: Action
    before: object = None
    after: object = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; lengths of time are microseconds."""
        return {
            "path": list(self.path),
            "action": self.action,
            "before": _plain(self.before),
            "after": _plain(self.after),
        }


def differences(before: object, after: object, path: Path = ()) -> Iterator[Difference]:
    """Yield how two values differ, in the order of their fields; nothing where they are equal.

    Items of a sequence are told apart by their label, their name, or themselves; where these are not unique, by their
    place. Of mappings the order does not count.

    >>> [(item.path, item.before, item.after) for item in differences({"a": {"b": 1}}, {"a": {"b": 2}})]
    [(('a', 'b'), 1, 2)]
    """
    if type(before) is type(after) and is_dataclass(before):
        for item in fields(before):
            yield from differences(getattr(before, item.name), getattr(after, item.name), (*path, item.name))
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _by_key(_texts(before), _texts(after), path)
    elif isinstance(before, list | tuple) and isinstance(after, list | tuple):
        yield from _of_items(before, after, path)
    elif not _same(before, after):
        yield Difference(path=path, action="change", before=before, after=after)


def keyed(items: Sequence[Any]) -> dict[str, Any] | None:
    """Return items by what tells them apart; None: nothing does."""
    found = {_name(item): item for item in items}
    return found if len(found) == len(items) and None not in found else None  # type: ignore[return-value]


def order_of(before: Mapping[str, object], after: Mapping[str, object], path: Path) -> list[Difference]:
    """Return the difference in the order of the items that both have; none: it is the same."""
    old, new = [name for name in before if name in after], [name for name in after if name in before]
    return [] if old == new else [Difference(path=path, action="order", before=old, after=new)]


def _of_items(before: Sequence[Any], after: Sequence[Any], path: Path) -> Iterator[Difference]:
    old, new = keyed(before), keyed(after)
    if old is not None and new is not None:
        yield from _by_key(old, new, path)
        yield from order_of(old, new, path)
    else:
        yield from _by_place(before, after, path)


def _by_key(before: Mapping[str, Any], after: Mapping[str, Any], path: Path) -> Iterator[Difference]:
    for name, value in after.items():
        if name in before:
            yield from differences(before[name], value, (*path, name))
        else:
            yield Difference(path=(*path, name), action="add", after=value)
    for name, value in before.items():
        if name not in after:
            yield Difference(path=(*path, name), action="remove", before=value)


def _by_place(before: Sequence[Any], after: Sequence[Any], path: Path) -> Iterator[Difference]:
    pairs = enumerate(zip(before, after, strict=False))
    places = [found for i, pair in pairs if (found := list(differences(*pair, (*path, str(i)))))]
    if len(before) != len(after) or len(places) > _MOST_PLACES:
        yield Difference(path=path, action="change", before=before, after=after)
    else:
        for found in places:
            yield from found


def _name(item: object) -> str | None:
    if is_dataclass(item):
        name = getattr(item, "label", getattr(item, "name", None))
        return name if isinstance(name, str) else None
    return None if isinstance(item, list | tuple | Mapping) else str(item)


def _texts(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): item for name, item in value.items()}


def _same(before: object, after: object) -> bool:
    """Say whether two values are the same: 1, 1.0 and True are three, and NaN is like itself."""
    if isinstance(before, str) and isinstance(after, str):
        return before == after
    if isinstance(before, float) and isinstance(after, float):
        return repr(before) == repr(after)
    return type(before) is type(after) and before == after


def _plain(value: object) -> object:
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
