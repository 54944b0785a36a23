"""The parts of a report: sections of tables, plots and paragraphs, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Tone = Literal["good", "bad", "plain", "missing"]


@dataclass(frozen=True, kw_only=True)
class FoldedCell:
    """A cell with a table under its summary, closed unless one of its rows is marked."""

    summary: str
    table: TableBlock


@dataclass(frozen=True, kw_only=True)
class TableBlock:
    """A table; its columns are terms of the glossary.

    Args:
        rows: cells as people read them, in the order of the columns.
        marked: numbers of the rows that need attention.
        terms: column whose cells are also terms of the glossary.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | FoldedCell]]
    marked: frozenset[int] = frozenset()
    terms: str | None = None
    kind: Literal["table"] = "table"


@dataclass(frozen=True, kw_only=True)
class PlotBlock:
    """A plot with its caption.

    Args:
        svg: an ``<svg>`` element, trusted.
        is_broad: whether it has the full width of the page.
    """

    title: str
    caption: str
    svg: str
    is_broad: bool = False
    kind: Literal["plot"] = "plot"


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """A sentence, for example about missing data.

    Args:
        tone: ``good``, ``bad``, ``plain``, or ``missing``.
        link: target of the sentence; None: no link.
    """

    text: str
    tone: Tone = "plain"
    link: str | None = None
    kind: Literal["note"] = "note"


Block = TableBlock | PlotBlock | Paragraph


@dataclass(frozen=True, kw_only=True)
class Section:
    """Blocks under one heading."""

    title: str
    blocks: Sequence[Block] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """A complete report.

    Args:
        made_at: ISO 8601.
        parts: heading of a part (a model, or the project) -> its sections.
        glossary: terms of the report with their meanings.
        file: path of the written page.
    """

    project: str
    made_at: str
    parts: Mapping[str, Sequence[Section]]
    glossary: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the texts of the report, without plots."""
        return {
            "file": None if self.file is None else str(self.file),
            "project": self.project,
            "made_at": self.made_at,
            "parts": {
                name: {section.title: [_plain(block) for block in section.blocks] for section in sections}
                for name, sections in self.parts.items()
            },
        }

    def used_terms(self) -> set[str]:
        """Return the names of all columns, and the cells of columns with terms."""
        blocks = [block for sections in self.parts.values() for section in sections for block in section.blocks]
        return set().union(*(_terms(block) for block in blocks if isinstance(block, TableBlock)))


def missing(text: str) -> Paragraph:
    """Return a sentence about missing data."""
    return Paragraph(text=text, tone="missing")


def _terms(table: TableBlock) -> set[str]:
    terms = set(table.columns)
    for row in table.rows:
        for column, cell in zip(table.columns, row, strict=True):
            if isinstance(cell, FoldedCell):
                terms |= _terms(cell.table)
            elif column == table.terms:
                terms.add(cell)
    return terms


def _plain(block: Block) -> dict[str, Any]:
    if isinstance(block, TableBlock):
        return {"kind": block.kind, "title": block.title, "rows": _rows(block)}
    if isinstance(block, PlotBlock):
        return {"kind": block.kind, "title": block.title, "caption": block.caption}
    return {"kind": block.kind, "text": block.text, "tone": block.tone, "link": block.link}


def _rows(table: TableBlock) -> list[dict[str, Any]]:
    rows = [
        [each if isinstance(each, str) else {"summary": each.summary, "rows": _rows(each.table)} for each in row]
        for row in table.rows
    ]
    return [dict(zip(table.columns, row, strict=True)) for row in rows]
