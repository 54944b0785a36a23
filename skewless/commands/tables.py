"""Tables that fit a terminal: rich wraps their cells, and a table of too many columns becomes records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from io import StringIO
from typing import TYPE_CHECKING, Literal

from skewless.commands.cells import StateCell, bold, cell, colours_of_marks, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

_GAP, _INDENT = 2, 2
_SHORT = 20  # the width of a time
_RULE = "\N{BOX DRAWINGS LIGHT HORIZONTAL}"
_RICH_COLOURS = {"good": "green", "warning": "yellow", "bad": "red", "plain": "none"}


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
        title = bold(printable(self.title)) if in_colour else printable(self.title)
        yield title if self.state is None else f"{title}: {self.state.line(in_colour=in_colour)}"
        grid = _Grid.of(self, in_colour=in_colour)
        fits = width is None or grid.width + _INDENT <= width
        for line in grid.lines() if width is None or fits else grid.wrapped(width - _INDENT):
            yield f"{' ' * _INDENT}{line}".rstrip()

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
class _Grid:
    """The cells of a table that are shown; those of the totals are the last row."""

    titles: Sequence[str]
    rows: Sequence[Sequence[StateCell]]
    widths: Sequence[int]
    is_right: Sequence[bool]
    has_totals: bool
    in_colour: bool

    @classmethod
    def of(cls, table: TextTable, *, in_colour: bool) -> _Grid:
        """Return the grid of a table: columns of numbers are on the right."""
        columns = [[row[i] for row in table.rows] for i in range(len(table.columns))]
        has_header, totals = any(table.columns), table.totals
        shown = [
            i
            for i, values in enumerate(columns)
            if i == 0 or not has_header or not values or any(value is not None and value != "" for value in values)
        ]
        titles = [printable(table.columns[i]) for i in shown]
        values = [*table.rows, *([totals] if totals else [])]
        rows = [[_as_cell(row[i], in_colour=in_colour) for i in shown] for row in values]
        widths = [
            max([text_width(title), *(text_width(line) for row in rows for line in row[i].text.split("\n"))])
            for i, title in enumerate(titles)
        ]
        is_right = [_is_number(columns[i]) for i in shown]
        return cls(
            titles=titles, rows=rows, widths=widths, is_right=is_right, has_totals=bool(totals), in_colour=in_colour
        )

    @property
    def width(self) -> int:
        """Return the width of a line in which no cell is wrapped."""
        return sum(self.widths) + _GAP * (len(self.widths) - 1)

    @property
    def least(self) -> Sequence[int]:
        """Return the least width of each column; the first column, and those of numbers and times, are not wrapped."""
        return [
            width if i == 0 or is_right else min(width, max(_SHORT, text_width(self.titles[i])))
            for i, (width, is_right) in enumerate(zip(self.widths, self.is_right, strict=True))
        ]

    def lines(self) -> Iterator[str]:
        """Yield a header, a rule, the rows, and the totals below a rule of their own; no cell is wrapped.

        Most tables fit: the import of rich would be a tenth of the time of a short command.
        """
        rule = (" " * _GAP).join(_RULE * width for width in self.widths)
        if any(self.titles):
            yield from self._row_lines([StateCell(title, "plain") for title in self.titles])
            yield rule
        for number, row in enumerate(self.rows):
            if self.has_totals and number == len(self.rows) - 1:
                yield rule
            yield from self._row_lines(row)

    def _row_lines(self, row: Sequence[StateCell]) -> Iterator[str]:
        parts = [item.text.split("\n") for item in row]
        for i in range(max(map(len, parts), default=0)):
            texts = []
            for part, item, width, is_right in zip(parts, row, self.widths, self.is_right, strict=True):
                text = part[i] if i < len(part) else ""
                space = " " * (width - text_width(text))
                padded = space + text if is_right else text + space
                texts.append(colours_of_marks(padded, item.known_tone) if self.in_colour else padded)
            yield (" " * _GAP).join(texts)

    def wrapped(self, width: int) -> list[str]:
        """Return the lines of the table with wrapped cells, or of a record for each row if that is still too wide."""
        from rich.box import Box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        def show(item: StateCell) -> RenderableType:
            return Text(item.text, _RICH_COLOURS[item.known_tone])

        none, rule = " " * 4, f" {_RULE}{_RULE} "
        # The rule of the third line is below the header, that of the fifth above the totals.
        box = Box(f"{none}\n{none}\n{rule}\n{none}\n{rule}\n{none}\n{none}\n{none}")
        table = Table(box=box, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        # A row's name, numbers and times are not wrapped: people copy them.
        for title, is_right, least, natural in zip(self.titles, self.is_right, self.least, self.widths, strict=True):
            justify: Literal["right", "left"] = "right" if is_right else "left"
            table.add_column(
                Text(title),
                justify=justify,
                no_wrap=least == natural,
                min_width=least,
                overflow="fold",
                header_style="none",
            )
        records = Table.grid("", "", padding=(0, _GAP, 0, 0))
        records.columns[1].overflow = "fold"
        for number, row in enumerate(self.rows):
            table.add_row(*map(show, row), end_section=self.has_totals and number == len(self.rows) - 2)
            if not any(self.titles):
                records.add_row(*map(show, row))
                continue
            if number:
                records.add_row(_RULE * max(map(text_width, self.titles)))
            for title, item in zip(self.titles, row, strict=True):
                records.add_row(Text(title or "value"), show(item))
        colours: Literal["standard"] | None = "standard" if self.in_colour else None
        console = Console(file=StringIO(), width=width, color_system=colours, legacy_windows=False)
        fits = any(self.titles) and sum(self.least) + _GAP * (len(self.least) - 1) <= width
        with console.capture() as capture:
            console.print(table if fits else records)
        return capture.get().splitlines()


def text_width(text: str) -> int:
    """Return how many columns of a terminal a text takes.

    >>> text_width("abc"), text_width("日本")
    (3, 4)
    """
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _as_cell(value: object, *, in_colour: bool) -> StateCell:
    """Return a value as it is shown, on a terminal with the symbol of its state."""
    if isinstance(value, StateCell):
        return StateCell(value.show(in_colour=in_colour), value.known_tone)
    return StateCell(cell(value), "plain")


def _is_number(values: Sequence[object]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
