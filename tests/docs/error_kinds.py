"""The kinds of errors that exist."""

from __future__ import annotations

from skewless.contract.errors import SkewlessError


def tree_of(kind: type[SkewlessError]) -> list[type[SkewlessError]]:
    """Return an error and all that are more special."""
    return [kind, *(below for child in kind.__subclasses__() for below in tree_of(child))]
