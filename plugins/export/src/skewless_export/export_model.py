"""A model that is exported: its trees, and what people and programs must know of its inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from skewless_export.table import TreeTable


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """One input of a model.

    Args:
        name: its name, for people.
        dtype: its type where it comes from; the code takes all as double.
        categories: words in the order of their codes; empty: the input is a number.
    """

    name: str
    dtype: str
    categories: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportModel:
    """A model that is exported.

    Args:
        name: the model's name.
        version: of its package.
        package: digest of its package.
        table: its trees.
        inputs: one for each feature of the table.
        note: a sentence about what the caller must compute before, for example the transforms of a request.
    """

    name: str
    version: str
    package: str
    table: TreeTable
    inputs: Sequence[ModelInput]
    note: str

    @property
    def identifier(self) -> str:
        """Return the name as an identifier of C, which is also the stem of file names."""
        name = re.sub(r"\W", "_", self.name, flags=re.ASCII)
        return f"model_{name}" if name[:1].isdigit() or not name.strip("_") else name
