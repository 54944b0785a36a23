"""docs/feast.md: every test that it names is there, and nothing that is repaired is missing."""

from __future__ import annotations

import ast
from pathlib import Path

from plugins.feast.tests.test_offline_repairs import CASES
from tests.docs.pages import ROOT, names, page, table

ONLINE = ROOT / "plugins/feast/tests/online"


def defined(path: Path) -> set[str]:
    """Return the names of a file's tests."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_online_repair_is_a_test() -> None:
    rows = table(page("feast.md"), "online", "Feast's Redis store", "ours", "test")
    claimed = [names(row["test"])[0] for row in rows]
    assert set(claimed) <= set().union(*(defined(path) for path in ONLINE.glob("test_*.py")))
    assert set(claimed) >= defined(ONLINE / "test_rights.py")


def test_every_offline_repair_is_listed() -> None:
    assert {
        names(row["offline"])[0] for row in table(page("feast.md"), "offline", "Feast's DuckDB store", "ours")
    } == set(CASES)
