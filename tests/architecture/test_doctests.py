"""The examples in the docstrings are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("skewless", *(f"skewless/{link}" for link in ("serving", "training", "validation", "infra")))
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
FEAST = (".compiler.", ".feast_plugins.")  # slow to import


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long) if any(part in name for part in FEAST) else name for name in MODULES],
)
def test_the_examples_of_a_module_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    assert result.attempted > 0
