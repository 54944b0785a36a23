"""Names of models, views, sources, services and projects, which become folders, files, keys and labels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

from skewless.contract.errors import DefinitionError, RequestError

RULE = "use at most 100 letters, digits, '_', '-' and '.', and begin with a letter, a digit or '_'"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def is_name(value: object) -> bool:
    """Say whether a value may name something: it is one plain component of a path, and means nothing elsewhere.

    >>> [is_name(name) for name in ("card_days", "fraud-v2", "../../v", "a/b", ".x", "-x", "a*", "", None)]
    [True, True, False, False, False, False, False, False, False]
    """
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def check_name(thing: str, value: object) -> None:
    """Do nothing if a value may name something.

    Args:
        thing: what it names, for the error.

    Raises:
        DefinitionError: it may not.
    """
    if not is_name(value):
        raise DefinitionError(thing, "is not a name", value=value, fix=RULE)


def check_known(thing: str, name: str, known: Iterable[str], *, problem: str = "is unknown") -> None:
    """Do nothing if a name that a caller gave is one of those that there are.

    Args:
        thing: what it names, for the error.

    Raises:
        RequestError: it is not.
    """
    names = list(known)
    if name not in names:
        fix = f"use one of: {', '.join(names)}" if names else "there is none yet"
        raise RequestError(thing, problem, value=name, fix=fix)


def partition_hash(partition: str) -> int:
    """Return the 64-bit number that stands for a log partition in the ranks of rows and in states."""
    return int.from_bytes(blake2b(partition.encode(), digest_size=8).digest(), "big")
