"""Changes of definitions as people read them, as in a pull request: one line for each difference."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Any

from skewless.commands.cells import printable
from skewless.contract.changes import Change, Difference
from skewless.contract.columns import Column, FeatureRef, Transform
from skewless.contract.decisions import Changes, Crosses, DecisionStream
from skewless.contract.plan import Service, Source, View
from skewless.contract.readable import length_text, time_text
from skewless.contract.render import count_text
from skewless.contract.spec import ModelSpec
from skewless.contract.windows.view import Aggregate, EventSource, WindowView

_MARKS = {"add": "+", "change": "~", "remove": "-", "order": "~"}
# Fields that hold named items, with the word that the label of an item begins with.
_ITEMS = {
    "aggregates": "",
    "features": "",
    "keys": "key ",
    "inputs": "input ",
    "columns": "column ",
    "outputs": "output ",
}
_TIMES = ("earliest_us", "latest_us")
_LONGEST = 48  # characters of one value
_CONTEXT = 8  # characters shown before the first difference of two long texts
_LINE = 100
_MOST_LINES = 6  # of the difference between two long texts
_MICROSECOND = timedelta(microseconds=1)


def change_lines(change: Change) -> list[str]:
    """Return the lines of one addition, change or removal."""
    name = f"{_MARKS[change.action]} {change.kind} {_cut(change.name)}"
    additions = [item for item in change.details if not item.path]
    inner = [line for item in change.details if item.path for line in difference_lines(item)]
    about = describe(additions[0].after) if additions and change.action == "add" else ""
    return [f"{name}: {about}" if about else name, *(f"    {line}" for line in inner)]


def difference_lines(item: Difference) -> list[str]:
    """Return the lines of one difference within a definition; a text of many lines gives a few.

    >>> difference_lines(Difference(path=("gate", "floor"), action="change", before=0.6, after=0.99))
    ['~ gate.floor 0.6 -> 0.99']
    """
    mark, label = _MARKS[item.action], _label(item.path)
    if item.action == "order":
        return [f"{mark} order of {label}: {_first_moved(item)}"]
    if item.action != "change":
        value = item.after if item.action == "add" else item.before
        about = "" if str(value) == item.path[-1] else describe(value)
        return [f"{mark} {label}: {about}" if about else f"{mark} {label}"]
    if _is_long(item.before) or _is_long(item.after):
        return _text_lines(f"{mark} {label}", str(item.before), str(item.after))
    return [f"{mark} {label} {' -> '.join(_pair(item))}"]


def describe(value: object) -> str:
    """Return a definition in a few words; empty if its name is enough."""
    for kind, words in _WORDS.items():
        if isinstance(value, kind):
            return words(value)
    return _value(value, "")


_WORDS: Mapping[type, Callable[[Any], str]] = {
    Aggregate: lambda it: f"{_cut(it.text)} over {length_text(it.window_us)}",
    Column: lambda it: str(it.dtype),
    FeatureRef: lambda _: "",
    Source: lambda it: _cut(it.path),
    View: lambda it: f"{count_text(len(it.features), 'feature')} by {_cut(_names(it.keys))}",
    WindowView: lambda it: (
        f"{count_text(len(it.aggregates), 'feature')} of {_cut(it.source)} by {_cut(_names(it.keys))}"
    ),
    EventSource: lambda it: f"{it.kind}, {count_text(len(it.columns), 'column')}",
    Transform: lambda it: count_text(len(it.outputs), "output"),
    Service: lambda it: count_text(len(it.features), "feature"),
    ModelSpec: lambda it: f"{it.algorithm} on {_cut(it.service)}",
    Crosses: lambda it: f"{_cut(it.feature)} crosses {it.bound:g}",
    Changes: lambda it: f"rows of {_cut(it.view)}",
    DecisionStream: lambda it: (
        f"{_cut(it.model)} decides {_cut(it.source or describe(it.when))}, {count_text(len(it.sinks), 'sink')}"
    ),
}


def _label(path: Sequence[str]) -> str:
    """Return the field of a difference, as a short path.

    >>> _label(("aggregates", "mean_7d", "window_us")), _label(("transform", "outputs", "late", "dtype"))
    ('mean_7d: window', 'transform output late: dtype')
    """
    text, glue, names = "", "", iter(path)
    for name in names:
        following = next(names, None) if name in _ITEMS else None
        if following is None:
            text, glue = text + glue + _cut(name.removesuffix("_us")), "."
        else:
            text, glue = f"{text}{' ' if text else ''}{_ITEMS[name]}{_cut(following)}", ": "
    return text


def _first_moved(item: Difference) -> str:
    before, after = list(_sequence(item.before)), list(_sequence(item.after))
    i = next(i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new)
    return f"{_cut(after[i])} is now before {_cut(before[i])}"


def _pair(item: Difference) -> tuple[str, str]:
    name = item.path[-1] if item.path else ""
    texts = _value(item.before, name), _value(item.after, name)
    if texts[0] != texts[1]:
        return texts
    if isinstance(item.before, list | tuple) and isinstance(item.after, list | tuple):
        pairs = zip(item.before, item.after, strict=True)
        return texts[0], f"{sum(old != new for old, new in pairs)} of them differ"
    reprs = [repr(item.before), repr(item.after)]
    differences = (i for i, (old, new) in enumerate(zip(*reprs, strict=False)) if old != new)
    start = max(0, next(differences, min(map(len, reprs))) - _CONTEXT)
    before, after = (("..." if start else "") + _cut(text[start:]) for text in reprs)
    return before, after


def _value(value: object, name: str) -> str:
    if isinstance(value, timedelta):
        return length_text(value // _MICROSECOND)
    if isinstance(value, int) and not isinstance(value, bool) and name.endswith("_us"):
        return _time(value) if name in _TIMES else length_text(value)
    if isinstance(value, Mapping | list | tuple):
        return count_text(len(value), "value")
    if isinstance(value, StrEnum):
        return str(value)
    return "none" if value is None else _cut(repr(value))


def _time(at_us: int) -> str:
    try:
        return str(time_text(at_us)).removesuffix(" 00:00:00Z")
    except OverflowError:
        return f"{at_us:,} us"


def _text_lines(head: str, before: str, after: str) -> list[str]:
    diff = list(difflib.unified_diff(before.split("\n"), after.split("\n"), n=0, lineterm=""))[2:]
    changed = [line for line in diff if not line.startswith("@@")]
    first_lines = [f"    {_cut(line, _LINE)}" for line in changed[:_MOST_LINES]]
    more = [f"    ... {len(changed) - _MOST_LINES:,} more lines"] if len(changed) > _MOST_LINES else []
    added = [line for line in changed if line.startswith("+")]
    return [
        f"{head}: {count_text(len(added), 'line')} added, {len(changed) - len(added):,} removed",
        *first_lines,
        *more,
    ]


def _is_long(value: object) -> bool:
    return isinstance(value, str) and "\n" in value


def _cut(text: str, longest: int = _LONGEST) -> str:
    """Return a text of bounded length that a terminal can show."""
    short = text if len(text) <= longest else f"{text[: longest - 3]}..."
    return printable(short).replace("\n", "\\n")


def _names(columns: Sequence[Column]) -> str:
    return ", ".join(column.name for column in columns)


def _sequence(value: object) -> Iterator[str]:
    return iter(value) if isinstance(value, list) else iter(())
