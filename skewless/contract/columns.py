"""The basic parts of a plan: typed columns, references to them, and request-time transforms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.names import check_name

REQUEST = "request"
PREDICTION = "prediction"  # group of the prediction's own fields that a transform may read: its time


def digest(value: object) -> str:
    """Return the first 16 hex digits of the SHA-256 of a value's canonical JSON.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    # Hashes are parts of online keys and of log folders: another text here would orphan all stored rows (SEMANTICS
    # 6.1).
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
        inputs: the columns that it reads; its argument is a dict keyed by their plain names.
        outputs: the columns that it returns, in a dict keyed by their plain names.
    """

    name: str
    function: str
    source: str
    inputs: tuple[FeatureRef, ...]
    outputs: tuple[Column, ...]

    def __post_init__(self) -> None:
        """Check the name: it becomes part of paths and keys."""
        check_name("on-demand feature view", self.name)

    @cached_property
    def hash(self) -> str:
        """Return a hash of the whole definition: transforms with equal hashes compute the same."""
        return digest(asdict(self))


def find_column(columns: Sequence[Column], name: str, owner: str, kind: str) -> Column:
    """Return a column by its name.

    Args:
        owner: the owner of the columns, for the error.
        kind: the kind of column, for the error.

    Raises:
        DefinitionError: no column has the name.
    """
    for column in columns:
        if column.name == name:
            return column
    known = ", ".join(column.name for column in columns)
    raise DefinitionError(owner, f"has no such {kind}", value=name, fix=f"use one of {known}")
