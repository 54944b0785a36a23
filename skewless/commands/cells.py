"""Values as people read them: in tables and lines of the command line."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from skewless.contract.readable import duration_text, time_text
from skewless.contract.render import count_text

Tone = Literal["good", "warning", "bad", "plain"]
_GOOD = "ok done passed current reachable present held open running alive yes"
_WARNING = "warn warning stale expired late behind skipped cancelled interrupted undecided"
_BAD = "fail failed refused rejected breached critical missing unavailable lost dead"
_TONES: dict[str, Tone] = {
    **dict.fromkeys(_GOOD.split(), "good"),
    **dict.fromkeys(_WARNING.split(), "warning"),
    **dict.fromkeys(_BAD.split(), "bad"),
}
_COLOURS: Mapping[Tone, str] = {"good": "32", "warning": "33", "bad": "31", "plain": "0"}
_SYMBOLS: Mapping[Tone, str] = {"good": "\N{CHECK MARK}", "warning": "!", "bad": "\N{BALLOT X}", "plain": ""}
_IDENTIFIERS = {"pid", "generation"}
_GOOD_IF = {"online_current": True, "lives": True, "late": False}
_STATES = {"state", "status", "severity", "verdict"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True)
class StateCell:
    """A state, such as ``done`` or ``failed``, with the tone that a terminal shows by colour and symbol.

    Args:
        text: the word or words of the state.
        tone: None: the tone of the text's first word.
        detail: follows the state without its colour.
    """

    text: str
    tone: Tone | None = None
    detail: str = ""

    def show(self, *, in_colour: bool) -> str:
        """Return the text, on a terminal with its symbol.

        >>> StateCell("failed").show(in_colour=False), StateCell("failed").show(in_colour=True)
        ('failed', '✗ failed')
        """
        symbol = _SYMBOLS[self.known_tone] if in_colour else ""
        return f"{symbol} {self.text}" if symbol else self.text

    def line(self, *, in_colour: bool) -> str:
        """Return the state in its colour and the detail, for use outside of a table."""
        text = self.show(in_colour=in_colour)
        return (colours_of_marks(text, self.known_tone) if in_colour else text) + printable(self.detail)

    @property
    def known_tone(self) -> Tone:
        """Return the tone; a word without one is plain."""
        if self.tone is not None:
            return self.tone
        return _TONES.get(self.text.partition(" ")[0].casefold(), "plain")


def colours_of_marks(text: str, tone: Tone) -> str:
    """Return a text in the colour of a tone, for a terminal."""
    return text if tone == "plain" else f"\x1b[{_COLOURS[tone]}m{text}\x1b[0m"


def bold(text: str) -> str:
    """Return a text in bold, for a terminal."""
    return f"\x1b[1m{text}\x1b[0m"


def cell(value: object) -> str:
    """Return one value as people read it; null is a dash.

    >>> [cell(value) for value in (None, True, 12_345, 0.123456, "x", ["a", 1], {"n": 2}, [{}])]
    ['-', 'yes', '12,345', '0.1235', 'x', 'a, 1', 'n 2', '1 item']
    """
    if isinstance(value, bool | None):
        return {None: "-", True: "yes", False: "no"}[value]
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _join(value)
    return printable(str(value))


def _join(values: Mapping[Any, object] | Collection[object]) -> str:
    """Return the items of a collection in a line; of a list of records, only their number."""
    if isinstance(values, Mapping):
        return ", ".join(f"{name} {cell(item)}" for name, item in values.items()) or "-"
    if any(isinstance(item, Mapping) for item in values):
        return count_text(len(values), "item")
    return ", ".join(map(cell, values)) or "-"


def printable(text: str) -> str:
    r"""Return a text that cannot move the cursor or change the colours of a terminal; line breaks stay.

    >>> printable("a\x1b[2Jb\n")
    'a\\x1b[2Jb\n'
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign == "\n" else sign.encode("unicode_escape").decode() for sign in text
    )


def labelled_cell(name: str, value: object) -> object:
    """Return a value of a record in the form that its field's name asks for, such as a duration, a time or a state.

    >>> labelled_cell("age_s", 90.0), labelled_cell("applied_at", "2026-01-15T12:00:00.5+00:00")
    ('1 min 30 s', '2026-01-15 12:00:00Z')
    """
    if isinstance(value, bool):
        good = _GOOD_IF.get(name)
        return value if good is None else StateCell("yes" if value else "no", "good" if value == good else "warning")
    if isinstance(value, str):
        return StateCell(value) if name in _STATES else _time_or_text(value)
    return _number_text(name, value) if isinstance(value, int | float) else value


def _time_or_text(text: str) -> str:
    with suppress(ValueError):
        return (_TIME.fullmatch(text) and time_text(text)) or text
    return text


def _number_text(name: str, value: float) -> float | str | None:
    if name.endswith(("_s", "seconds")):
        return duration_text(value)
    if isinstance(value, float):
        return f"{value:.1%}" if name.endswith("_share") else value
    if name.endswith("_us"):
        return time_text(value)
    return str(value) if name in _IDENTIFIERS else value


# Of fields whose names people would not understand.
_TITLES = {
    "expect": "from",
    "limit_s": "allowed",
    "lives": "alive",
    "moves": "champion changes",
    "newest": "latest event",
    "sampled": "rows read",
    "seconds": "duration",
    "verb": "command",
}


def label(name: str) -> str:
    """Return a field's name as a column's title, without its unit.

    >>> label("log_rows"), label("age_s")
    ('log rows', 'age')
    """
    return _TITLES.get(name) or name.removesuffix("_s").removesuffix("_us").replace("_", " ")
