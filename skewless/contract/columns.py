"""Typed columns, what refers to them, and the transforms that make them: the words in which a plan is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.names import check_name

REQUEST = "request"
PREDICTION = "prediction"  # the group of what a transform reads of the prediction itself: its time


def digest(value: object) -> str:
    """Return the first 16 hex digits of the SHA-256 of a value's canonical JSON.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A named, typed column: a key, a feature or a request field."""

    name: str
    dtype: DType


@dataclass(frozen=True, kw_only=True)
class FeatureRef:
    """One column of a vector: a feature of a view, an output of a transform or a request field."""

    group: str
    name: str

    @property
    def label(self) -> str:
        """Return the name used in matrices, logs and replies.

        >>> FeatureRef(group="weather", name="temp").label
        'weather__temp'
        """
        return f"{self.group}__{self.name}"


@dataclass(frozen=True, kw_only=True)
class Transform:
    """A request-time transform: a function of a numpy-only module (SEMANTICS 5.1).

    Args:
        function: name of the function in the module.
        source: the module's source text, which travels in every model package.
        inputs: what it reads; its argument is keyed by the plain names.
        outputs: what it returns, keyed by the plain names.
    """

    name: str
    function: str
    source: str
    inputs: tuple[FeatureRef, ...]
    outputs: tuple[Column, ...]

    def __post_init__(self) -> None:
        """Refuse a name that could be something else than a name where it is a part of a path or a key."""
        check_name("on-demand feature view", self.name)

    @cached_property
    def hash(self) -> str:
        """Return the identity of what the transform computes."""
        return digest(asdict(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Transform:
        """Build a transform from plain JSON values."""
        return cls(**{**data, "inputs": refs_from(data["inputs"]), "outputs": columns_from(data["outputs"])})


def find_column(columns: Sequence[Column], name: str, owner: str, what: str) -> Column:
    """Return a column by its name.

    Args:
        owner: how an error calls those whose columns they are.
        what: how it calls such a column.

    Raises:
        DefinitionError: there is none.
    """
    for column in columns:
        if column.name == name:
            return column
    known = ", ".join(column.name for column in columns)
    raise DefinitionError(owner, f"has no such {what}", value=name, fix=f"use one of {known}")


def columns_from(data: Iterable[Mapping[str, str]]) -> tuple[Column, ...]:
    """Build columns from plain JSON values."""
    return tuple(Column(name=item["name"], dtype=DType(item["dtype"])) for item in data)


def refs_from(data: Iterable[Mapping[str, str]]) -> tuple[FeatureRef, ...]:
    """Build references from plain JSON values."""
    return tuple(FeatureRef(**item) for item in data)
