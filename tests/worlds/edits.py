"""Edits of a repo's files, as a user makes them."""

from __future__ import annotations

from pathlib import Path


def edit(repo: Path, old: str, new: str, *, file: str = "definitions.py") -> None:
    """Replace a text that must be there, and that is what it was meant to be: unique."""
    text = (repo / file).read_text()
    assert text.count(old) == 1, (old, text.count(old))
    (repo / file).write_text(text.replace(old, new))
