"""Values and records as programs read them: JSON values, with durations in microseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from datetime import timedelta
from enum import Enum
from functools import cache
from itertools import repeat
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
JSON_ONLY: Mapping[str, bool] = {"json_only": True}  # metadata of a field that programs read, and no table shows
_type_hints: Callable[[type], dict[str, Any]] = cache(get_type_hints)


@dataclass(frozen=True, kw_only=True)
class PlainRecord:
    """A frozen dataclass whose fields, and those of the dataclasses in it, are JSON values."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build a record from the result of ``as_dict``.

        Raises:
            TypeError, ValueError: these are not the values of such a record.
        """
        return build_record(cls, data)


def table_fields(record: DataclassInstance | Mapping[str, object]) -> list[str]:
    """Return the names of the fields of a record that tables show: all but those with the metadata ``JSON_ONLY``."""
    if isinstance(record, Mapping):
        return [*record]
    return [item.name for item in fields(record) if "json_only" not in item.metadata]


def plain_value(value: object) -> object:
    """Return a value of dataclasses, mappings, sequences and durations as plain JSON values.

    >>> plain_value({1: (timedelta(seconds=1), "a")})
    {'1': [1000000, 'a']}
    """
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    if is_dataclass(value) and not isinstance(value, type):
        return plain_value(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain_value(item) for name, item in value.items()}
    return [plain_value(item) for item in value] if isinstance(value, list | tuple) else value


def build_value(kind: Any, value: Any) -> Any:  # noqa: ANN401 - any type, and its value
    """Return a value of a type from plain JSON values: the inverse of ``plain_value``.

    A mapping becomes the first dataclass of a union that has all its names, and whose other fields have defaults.

    >>> build_value(dict[str, tuple[timedelta, ...] | None], {"a": [1000000], "b": None})
    {'a': (datetime.timedelta(seconds=1),), 'b': None}
    """
    origin, parts = get_origin(kind), get_args(kind)
    if isinstance(kind, type):
        return _build_object(kind, value)
    if origin in {Union, UnionType}:
        # A record may be built already.
        return value if value is None or is_dataclass(value) else build_value(_choose(parts, value), value)
    if origin is tuple:
        return tuple(map(build_value, repeat(parts[0]) if parts[-1] is ... else parts, value))
    if origin in {list, Sequence}:
        return [build_value(parts[0], item) for item in value]
    if origin in {dict, Mapping}:
        return {name: build_value(parts[1], item) for name, item in value.items()}
    return value


def _build_object(kind: type, value: Any) -> Any:  # noqa: ANN401 - as above
    if is_dataclass(kind):
        return build_record(kind, value)
    if issubclass(kind, tuple):
        return kind(*map(build_value, _type_hints(kind).values(), value))
    if issubclass(kind, timedelta):
        return timedelta(microseconds=value)
    return kind(value) if issubclass(kind, Enum) else value


def build_record(kind: type[T], data: Mapping[str, Any]) -> T:
    """Return an object of a dataclass from plain JSON values.

    Raises:
        TypeError, ValueError: these are not the values of such an object.
    """
    kinds = _type_hints(kind)
    return kind(**{name: build_value(kinds.get(name), value) for name, value in dict(data).items()})


def _choose(kinds: Sequence[Any], value: Any) -> Any:  # noqa: ANN401 - a type, and its value
    """Return the type of a union that a value has, which is not None."""
    kinds = [kind for kind in kinds if kind is not NoneType]
    records = [kind for kind in kinds if is_dataclass(kind)] if isinstance(value, Mapping) else []
    return next((kind for kind in records if _fits(kind, value)), (records or kinds)[0])


def _fits(kind: Any, data: Mapping[str, Any]) -> bool:  # noqa: ANN401 - a dataclass
    needed = {item.name for item in fields(kind) if item.default is MISSING and item.default_factory is MISSING}
    return needed <= data.keys() <= {item.name for item in fields(kind)}
