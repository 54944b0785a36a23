"""The page of the architecture is true: each file, and what it names beside one, is there, and no room is left out."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT

PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
FILES = sorted(set(re.findall(r"`((?:skewless|serving|training|validation|infra)/[\w/]+\.py)`", PAGE)))
FOR_CONTRIBUTORS = [
    ROOT / "CONTRIBUTING.md",
    ROOT / "tests/README.md",
    DOCS / "extending.md",
    *sorted((DOCS / "decisions").glob("*.md")),
]
NAMES = sorted(set(re.findall(r"`([A-Z]\w+(?:\.\w+)?|[a-z]+_[a-z_]+)`", PAGE)))
LAYERS = {
    contract["id"]: [name.strip() for layer in contract["layers"] for name in layer.split("|")]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    if contract["type"] == "layers"
}


def defined(path: Path) -> set[str]:
    """Return the classes and functions of a file, methods as ``Class.method``."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            own = (item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {node.name, *(f"{node.name}.{item.name}" for item in own)}
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("page", FOR_CONTRIBUTORS, ids=lambda page: page.stem)
def test_what_a_contributor_is_sent_to_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?<![/\w])((?:plugins|skewless|serving|training|validation|infra|tests|docs)/[\w/.-]*)", text)
    missing = [name for name in named if "YOUR" not in name and not (ROOT / name.rstrip(".")).exists()]
    assert missing == []


def test_the_index_of_decisions_is_whole() -> None:
    index = (DOCS / "decisions/README.md").read_text(encoding="utf-8")
    files = [page for page in FOR_CONTRIBUTORS if page.parent.name == "decisions" and page.name != "README.md"]
    assert len(files) == 15
    for page in files:
        number, title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").split(". ", 1)
        assert f"| [{number}]({page.name}) | {title} |" in index


def test_what_is_named_is_in_a_file_that_is_named() -> None:
    modules = {"great_expectations", "feature_repo", *LAYERS["rooms"], *LAYERS["folders"]}
    known = {"Project"}.union(*(defined(ROOT / name) for name in FILES))
    assert {name for name in NAMES if name not in modules} - known == set()
    assert len(NAMES) > 20


@pytest.mark.parametrize(("room", "contract"), [("infra", "rooms"), ("serving", "folders")])
def test_folders_stand_in_the_order_of_the_contract(room: str, contract: str) -> None:
    (section,) = re.findall(rf"^## The \w+ of `{room}/`\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert names == LAYERS[contract]
    there = {
        path.stem for path in (ROOT / room).glob("[a-z]*") if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set(names) == there


def test_every_room_is_on_the_page() -> None:
    rooms = re.findall(r"^\| (`(?:skewless|serving|training|validation|infra)/[^|]*)\|", PAGE, re.MULTILINE)
    named = {Path(path).stem for row in rooms for path in re.findall(r"`([^`]+)`", row)}
    assert named == set(LAYERS["layers"]) - {"version"}


def test_no_module_of_the_adapters_is_loose() -> None:
    assert [path.name for path in (ROOT / "infra").glob("*.py")] == ["__init__.py"]
