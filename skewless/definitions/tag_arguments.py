"""Typed arguments to tags, and the compiler's errors about tags to errors about arguments."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal

from feast import FileSource

from skewless.contract.errors import DefinitionError
from skewless.infra.definitions.compiler.event_columns import duration_text
from skewless.infra.definitions.compiler.event_sources import TAG_SCALE
from skewless.infra.definitions.sources.duckdb_source import DuckDBSource

ColumnType = Literal["string", "int32", "int64", "float32", "float64", "bool", "timestamp"]
BatchSource = FileSource | DuckDBSource
ColumnFunction = Callable[..., Mapping[str, Any]]

_OURS = "skewless."
# An example in a fix, a scale of one column, any other tag.
_EXAMPLE = re.compile(r"""tags=\{"skewless\.(\w+)": "[^"]*"\}""")
_SCALE = re.compile(r"""tag '?skewless\.scale\.(.+?)'(?=$|\s)|tag skewless\.scale\.COLUMN""")
_TAG = re.compile(r"""(?:tag )?'skewless\.(\w+)'""")


@contextmanager
def named_arguments() -> Iterator[None]:
    """Name arguments in the errors of a block whose compiler errors name tags."""
    try:
        yield
    except DefinitionError as error:
        raise DefinitionError(
            _argument_text(error.thing),
            _argument_text(error.problem),
            value=error.value,
            fix=_argument_text(error.fix),
        ) from error


def all_tags(thing: str, tags: Mapping[str, str] | None, own: Mapping[str, str]) -> dict[str, str]:
    """Return the user's further tags and those of the arguments.

    Raises:
        DefinitionError: a further tag belongs to skewless.
    """
    for tag in tags or {}:
        if tag.startswith(_OURS):
            name = tag.removeprefix(_OURS).partition(".")[0]
            raise DefinitionError(
                f"{thing} argument 'tags'",
                "has a tag that belongs to skewless",
                value=tag,
                fix=f"use the argument {'scales' if name == 'scale' else name}",
            )
    return {**(tags or {}), **own}


def duration_tags(thing: str, lengths: Mapping[str, timedelta | None]) -> dict[str, str]:
    """Return the tags of lengths of time; None: no tag."""
    return {tag: duration_text(f"{thing} tag {tag!r}", length) for tag, length in lengths.items() if length is not None}


def text_tags(texts: Mapping[str, str | None]) -> dict[str, str]:
    """Return the tags that have a text."""
    return {tag: text for tag, text in texts.items() if text is not None}


def scale_tags(scales: Mapping[str, int] | None) -> dict[str, str]:
    """Return a tag per column; the compiler checks columns and digits."""
    return {f"{TAG_SCALE}{column}": str(digits) for column, digits in (scales or {}).items()}


def _argument_text(text: str) -> str:
    text = _EXAMPLE.sub(lambda match: f"the argument {match[1]}", text)
    text = _SCALE.sub(lambda match: f"argument 'scales' column {match[1]!r}" if match[1] else "argument 'scales'", text)
    return _TAG.sub(lambda match: f"argument {match[1]!r}", text).replace("remove the tag", "remove it")
