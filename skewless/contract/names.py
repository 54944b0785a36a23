"""Check names of models, views, sources, services and projects: they become folders, files, keys and labels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from hashlib import blake2b

from skewless.contract.errors import DefinitionError, RequestError

RULE = "use at most 100 letters, digits, '_', '-' and '.', and begin with a letter, a digit or '_'"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def is_name(value: object) -> bool:
    """Say whether a value is a valid name: one plain component of a path, without special characters.

    >>> [is_name(name) for name in ("card_days", "fraud-v2", "../../v", "a/b", ".x", "-x", "a*", "", None)]
    [True, True, False, False, False, False, False, False, False]
    """
    # No leading dot or hyphen: the name would be a hidden file or an option of a command.
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def check_name(thing: str, value: object) -> None:
    """Check that a value is a valid name.

    Args:
        thing: kind of the named thing, for the error.

    Raises:
        DefinitionError: it is not a valid name.
    """
    if not is_name(value):
        raise DefinitionError(thing, "is not a name", value=value, fix=RULE)


def check_known(thing: str, name: str, known: Iterable[str], *, problem: str = "is unknown") -> None:
    """Check that a name from a caller exists.

    Args:
        thing: kind of the named thing, for the error.
        known: all names that exist.

    Raises:
        RequestError: the name does not exist.
    """
    names = list(known)
    if name not in names:
        near = get_close_matches(name, names, 1)
        fix = f"use one of: {', '.join(names)}" if names else "create it first"
        fix = f"write {near[0]!r}, or {fix}" if near and len(names) > 1 else fix
        raise RequestError(thing, problem, value=name, fix=fix)


def partition_hash(partition: str) -> int:
    """Return the 64-bit hash of a log partition's name, which ranks of rows and states hold."""
    return int.from_bytes(blake2b(partition.encode(), digest_size=8).digest(), "big")
