"""The examples in the docstrings of the comparisons are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[4] / "benchmarks"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_comparison_are_true(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(f"benchmarks.{name}"))
    assert outcome.attempted > outcome.failed == 0
