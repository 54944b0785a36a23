"""What a page is: a path, a question, and a function that reads the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from skewless.contract.errors import RequestError, SkewlessError
from skewless.project import Project

T = TypeVar("T")
MOST_TEXT = 1_000


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a reader of a page asks for.

    Args:
        path: the values in the path, decoded.
        values: the last value of each name in the query.
        models: the only models that the reader may see; None: all.
    """

    path: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    models: frozenset[str] | None = None

    def text(self, name: str, default: str = "") -> str:
        """Return a value of the query.

        Raises:
            RequestError: it is too long.
        """
        value = self.values.get(name, default)
        if len(value) > MOST_TEXT:
            raise RequestError(f"value {name!r}", "is too long", value=value, fix=f"use {MOST_TEXT:,} characters")
        return value

    def number(self, name: str, default: int, *, most: int) -> int:
        """Return a whole number between 0 and ``most``.

        Raises:
            RequestError: it is none.
        """
        text = self.text(name, str(default))
        if not (text.isascii() and text.isdigit() and int(text[:19]) <= most):
            raise RequestError(f"value {name!r}", "is not allowed", value=text, fix=f"use a number from 0 to {most:,}")
        return int(text)

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """Return one of the allowed values; the first is the default.

        Raises:
            RequestError: it is none of them.
        """
        text = self.text(name, allowed[0])
        if text not in allowed:
            raise RequestError(f"value {name!r}", "is unknown", value=text, fix=f"use one of {', '.join(allowed)}")
        return text


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page, which is also served as JSON at its path with ``.json``.

    Another package adds a page by an entry point of ``skewless.pages``. It has the rights of the room's own pages:
    people who may view the project see it, and it reads with their limit of models.

    Args:
        path: as Starlette writes it, ``/models/{model}``; the JSON is at the same path with ``.json``.
        question: that the page answers; its heading.
        template: a file in ``templates/``; it gets the data as ``page``, and escapes each value. Of another package's
            page a name of its own, such as ``my_package.html``.
        source: the text of that template, of another package's page; it may extend ``base.html``.
        read: returns the data: a dataclass whose fields, and those of the dataclasses in it, are plain values. It
            reads a bounded amount.
        menu: word in the menu; empty: the page is not in the menu.
        is_personal: whether it shows single rows, which can have personal data: ``ui --save`` does not write it.
        live_s: seconds after which an open page reads again; 0: never.
    """

    path: str
    question: str
    template: str
    read: Callable[[Project, Query], object]
    menu: str = ""
    live_s: int = 0
    is_personal: bool = False
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """A part of a page that could not be read.

    Args:
        unknown: the thing, and the reason.
        fix: what to do about it.
    """

    unknown: str
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Known(Generic[T]):
    """A part of a page that was read."""

    value: T


Part = Known[T] | Unknown
"""A part of a page, which does not fail the others if it cannot be read. Templates show it with ``section``."""


def read_part(read: Callable[[], T]) -> Part[T]:
    """Return a part of a page, or why it is not known.

    >>> read_part(lambda: 5)
    Known(value=5)
    """
    try:
        return Known(value=read())
    except SkewlessError as error:
        return Unknown(unknown=f"{error.thing}: {error.problem}", fix=error.fix)
