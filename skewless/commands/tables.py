"""Tables that fit a terminal: wide cells are wrapped or shortened, and a table of too many columns becomes records."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace

from skewless.commands.cells import StateCell, Tone, bold, cell, colours_of_marks, printable

_GAP, _INDENT = 2, 2
_LEAST = 8  # the narrowest that a column of text becomes
_LEAST_TITLE = 4
_SHORT_WORD = 12
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?Z")


@dataclass(frozen=True)
class TextTable:
    """A table for people; a column without a value in any row is not shown, unless it is the first.

    Args:
        columns: titles; all empty: the table has no header, and the first column names the second.
        state: shown after the title.
        rows: values as ``cell`` shows them, or a ``State``.
        sums: titles of the columns of counts that add up: with more rows than one, the last row shows the totals.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    _: KW_ONLY
    sums: Sequence[str] = ()
    state: StateCell | None = None

    def lines(self, width: int | None, *, in_colour: bool = False) -> Iterator[str]:
        """Yield the lines; none is wider than ``width`` characters.

        Args:
            width: None: as wide as the values are.
        """
        grid = Grid.of(self._without_empty_columns(), width, in_colour=in_colour)
        title = bold(printable(self.title)) if in_colour else printable(self.title)
        state = "" if self.state is None else f": {self.state.line(in_colour=in_colour)}"
        yield f"{title}{state}"
        yield from grid.lines() if grid.fits else grid.records()

    def _without_empty_columns(self) -> TextTable:
        kept = [
            i
            for i in range(len(self.columns))
            if i == 0 or not self.rows or not all(row[i] is None or row[i] == "" for row in self.rows)
        ]
        if not any(self.columns) or len(kept) == len(self.columns):
            return self
        return replace(
            self, columns=[self.columns[i] for i in kept], rows=[[row[i] for i in kept] for row in self.rows]
        )

    @property
    def totals(self) -> Sequence[object] | None:
        """Return the row of totals; None: nothing to add up."""
        if not self.sums or len(self.rows) < 2:  # noqa: PLR2004 - one row is its own total
            return None
        sums = [
            sum(row[i] for row in self.rows if isinstance(row[i], int)) if name in self.sums else ""  # type: ignore[misc]
            for i, name in enumerate(self.columns)
        ]
        return ["total", *sums[1:]]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The texts of a table, with a width for each column."""

    table: TextTable
    texts: Sequence[Sequence[str]]
    tones: Sequence[Sequence[Tone]]
    widths: Sequence[int]
    width: int | None
    in_colour: bool

    @classmethod
    def of(cls, table: TextTable, width: int | None, *, in_colour: bool) -> Grid:
        """Return the grid of a table, its columns narrowed to the width as far as they can be."""
        values = [*table.rows, *([table.totals] if table.totals else [])]
        texts = [
            [value.show(in_colour=in_colour) if isinstance(value, StateCell) else cell(value) for value in row]
            for row in values
        ]
        tones: list[list[Tone]] = [
            [value.known_tone if isinstance(value, StateCell) else "plain" for value in row] for row in values
        ]
        columns = range(len(table.columns))
        words = [max(map(text_width, printable(title).split(" "))) for title in table.columns]
        cells = [max((text_width(line) for row in texts for line in row[i].split("\n")), default=0) for i in columns]
        natural = [max(text_width(printable(table.columns[i])), cells[i]) for i in columns]
        shortest = _LEAST if any(table.columns) else _LEAST_TITLE
        least = [
            max(words[i], cells[i])
            if _is_number(table, i)
            else min(natural[i], max([shortest, words[i], *(_unbreakable(row[i]) for row in texts)]))
            for i in columns
        ]
        space = None if width is None else width - _INDENT - _GAP * (len(natural) - 1)
        widths = natural if space is None else _narrowed(natural, least, space)
        return cls(table=table, texts=texts, tones=tones, widths=widths, width=width, in_colour=in_colour)

    @property
    def fits(self) -> bool:
        """Whether the columns are narrow enough for the terminal."""
        if self.width is None or not any(self.table.columns):
            return True
        return _INDENT + sum(self.widths) + _GAP * (len(self.widths) - 1) <= self.width

    def lines(self) -> Iterator[str]:
        """Yield a header, a rule, the rows, and the totals below a rule of their own."""
        rule = [("\N{BOX DRAWINGS LIGHT HORIZONTAL}" * width) for width in self.widths]
        if any(self.table.columns):
            titles = [
                fit(printable(title), width) for title, width in zip(self.table.columns, self.widths, strict=True)
            ]
            for i in range(-max(map(len, titles)), 0):
                yield self._line([title[i] if -i <= len(title) else "" for title in titles], ["plain"] * len(rule))
            yield self._line(rule, ["plain"] * len(rule))
        for number, (row, tones) in enumerate(zip(self.texts, self.tones, strict=True)):
            if self.table.totals and number == len(self.texts) - 1:
                yield self._line(rule, ["plain"] * len(rule))
            parts = [fit(text, width) for text, width in zip(row, self.widths, strict=True)]
            for i in range(max(map(len, parts), default=0)):
                yield self._line([part[i] if i < len(part) else "" for part in parts], tones)

    def records(self) -> Iterator[str]:
        """Yield each row as lines of a title and a value, for a terminal that is too narrow for the columns."""
        titles = [title or "value" for title in self.table.columns]
        widest = max(map(text_width, titles), default=0)
        room = max(_LEAST, (self.width or 0) - _INDENT - widest - _GAP)
        for number, (row, tones) in enumerate(zip(self.texts, self.tones, strict=True)):
            if number:
                yield " " * _INDENT + "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * widest
            for title, text, tone in zip(titles, row, tones, strict=True):
                for i, part in enumerate(fit(text, room)):
                    shown = colours_of_marks(part, tone) if self.in_colour else part
                    yield f"{' ' * _INDENT}{_padded(title if i == 0 else '', widest)}{' ' * _GAP}{shown}".rstrip()

    def _line(self, texts: Sequence[str], tones: Sequence[Tone]) -> str:
        parts = [
            _padded(text, width, right=_is_number(self.table, i))
            for i, (text, width) in enumerate(zip(texts, self.widths, strict=True))
        ]
        shown = [
            colours_of_marks(part, tone) if self.in_colour else part for part, tone in zip(parts, tones, strict=True)
        ]
        return (" " * _INDENT + (" " * _GAP).join(shown)).rstrip()


def fit(text: str, width: int) -> list[str]:
    """Return the lines of a text: wrapped between words, a longer word shortened in its middle.

    >>> fit("model 'fraud' has no champion", 14), fit("/srv/project/data/payments.parquet", 15)
    (["model 'fraud'", 'has no', 'champion'], ['/srv/pr…parquet'])
    """
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            short = shorten_middle(word, width)
            if line and text_width(line) + 1 + text_width(short) > width:
                lines.append(line)
                line = short
            else:
                line = f"{line} {short}" if line else short
        lines.append(line)
    return lines


def shorten_middle(text: str, width: int) -> str:
    """Return a text of at most ``width`` columns, with an ellipsis in place of its middle."""
    if text_width(text) <= width:
        return text
    head, tail = text[: (width - 1) // 2 + 1], text[len(text) - (width - 1) // 2 :] if width > 2 else ""  # noqa: PLR2004
    while head and text_width(head) + 1 + text_width(tail) > width:
        head, tail = (head[:-1], tail) if text_width(head) >= text_width(tail) else (head, tail[1:])
    return f"{head}\N{HORIZONTAL ELLIPSIS}{tail}"


def text_width(text: str) -> int:
    """Return how many columns of a terminal a text takes.

    >>> text_width("abc"), text_width("日本")
    (3, 4)
    """
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(sign) else 2 if unicodedata.east_asian_width(sign) in {"W", "F"} else 1
        for sign in text
    )


def _narrowed(natural: Sequence[int], least: Sequence[int], space: int) -> list[int]:
    """Return widths that fit the space: the widest column becomes narrower first, none narrower than its least.

    The first column, the name of the row, becomes narrower last: people copy it into other commands.
    """
    widths = list(natural)
    while sum(widths) > space:
        wide = [i for i in range(len(widths)) if widths[i] > least[i]]
        if not wide:
            break
        widths[max(wide, key=lambda i: (i > 0, widths[i]))] -= 1
    return widths


def _is_number(table: TextTable, i: int) -> bool:
    values = [row[i] for row in table.rows if row[i] is not None]
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _unbreakable(text: str) -> int:
    """Return the width of the longest part of a text that stays complete: a time, or a short word."""
    if _TIME.fullmatch(text):
        return text_width(text)
    return max((width for width in map(text_width, text.split()) if width <= _SHORT_WORD), default=0)


def _padded(text: str, width: int, *, right: bool = False) -> str:
    space = " " * (width - text_width(text))
    return space + text if right else text + space
