"""The examples in the docstrings are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT, *sorted(ROOT.glob("*/*/src")))
LINKS = ("serving", "training", "validation", "infra")
PACKAGES = (ROOT / "skewless", *(ROOT / "skewless" / link for link in LINKS), *sorted(ROOT.glob("*/*/src/skewless_*")))
MODULES = sorted(
    ".".join(path.relative_to(source).with_suffix("").parts)
    for package in PACKAGES
    for source in (package.parent if package.parent in SOURCES else ROOT,)
    for path in package.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
FEAST = (".compiler.", "skewless_feast.")  # slow to import


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long) if any(part in name for part in FEAST) else name for name in MODULES],
)
def test_the_examples_of_a_module_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    assert result.attempted > 0
