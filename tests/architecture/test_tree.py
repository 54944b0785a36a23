"""The shape of the tree: sizes, names, docstrings, and what no file may hold."""

from __future__ import annotations

import ast
import gc
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("skewless", "serving", "training", "validation", "infra")
OURS = (*PACKAGES, "conftest.py", "feature_repo", "plugins", "examples", "benchmarks", "docs", "tests", "tools")
MAY_PRINT = {"skewless/cli.py", "examples/demo/src/skewless_demo/flights/__main__.py"}
MOST_LINES_OF_A_FUNCTION = 60
NOT_TRACKED = {"__pycache__", "build", "data", "dist"}
# Joined here, so that this file passes its own rule.
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (("pypi", "org"), ("pythonhosted", "org"), ("anaconda", "org"), ("npmjs", "org"), ("crates", "io"))
)


def files() -> Iterator[Path]:
    """Yield the files of the checkout: no hidden folder but ``.ci``, no environment, no data."""
    for folder, names, leaves in os.walk(ROOT):
        if "pyvenv.cfg" in leaves:
            names.clear()
            continue
        names[:] = [name for name in names if name not in NOT_TRACKED and (name == ".ci" or name[0] != ".")]
        yield from (Path(folder, leaf) for leaf in leaves if not leaf.startswith(".coverage"))


def name_of(path: Path) -> str:
    """Return a file's path below the root."""
    return path.relative_to(ROOT).as_posix()


MODULES = sorted(name_of(path) for path in files() if path.suffix == ".py")
Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
LIBRARY = [
    name for name in MODULES if name.partition("/")[0] in PACKAGES or re.match(r"(plugins|examples)/\w+/src/", name)
]
TESTS = [name for name in MODULES if re.match(r"((plugins|examples)/\w+/)?tests/", name)]


@cache
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of each file."""
    gc.disable()  # it would look through all of them again and again
    try:
        return {name: ast.parse((ROOT / name).read_text(encoding="utf-8"), filename=name) for name in MODULES}
    finally:
        gc.freeze()
        gc.enable()


@cache
def definitions() -> dict[str, list[Definition]]:
    """Return the classes and functions of each file, at any depth: they are statements, so no expression is walked."""
    found: dict[str, list[Definition]] = {}
    for name, tree in trees().items():
        of_file, left = found.setdefault(name, []), list[ast.AST](tree.body)
        while left:
            node = left.pop()
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                of_file.append(node)
            for block in ("body", "orelse", "finalbody", "handlers", "cases"):
                inner = getattr(node, block, ())
                left += inner if isinstance(inner, list) else ()
    return found


def test_every_module_lies_in_a_known_folder() -> None:
    assert {name.partition("/")[0] for name in MODULES} <= set(OURS)


def test_no_file_is_a_drawer_of_utilities() -> None:
    assert [name for name in MODULES if Path(name).stem in {"utils", "util", "helpers", "common", "misc"}] == []


def test_a_name_means_one_class() -> None:
    homes: dict[str, list[str]] = {}
    for name in MODULES:
        if name in LIBRARY or name.startswith("feature_repo/"):
            for node in definitions()[name]:
                if isinstance(node, ast.ClassDef):
                    homes.setdefault(node.name, []).append(name)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_functions_are_short() -> None:
    spans = {
        f"{name}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for name in MODULES
        for node in definitions()[name]
        if not isinstance(node, ast.ClassDef)
    }
    assert {function: span for function, span in spans.items() if span > MOST_LINES_OF_A_FUNCTION} == {}


def test_modules_say_what_they_are() -> None:
    assert [name for name in LIBRARY if not ast.get_docstring(trees()[name])] == []


def test_modules_print_nothing() -> None:
    prints = {
        f"{name}:{node.lineno}"
        for name in MODULES
        if name not in MAY_PRINT and name not in TESTS and name.partition("/")[0] not in {"benchmarks", "tools"}
        for node in ast.walk(trees()[name])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert prints == set()


def test_no_file_names_the_host_of_a_package_registry() -> None:
    found = {
        (name_of(path), host)
        for path in files()
        for host in REGISTRY_HOSTS
        if host.encode() in path.read_bytes().lower()
    }
    assert found == set()


def test_a_name_means_one_thing_in_the_tests() -> None:
    """A class has one home, and a fixture holds one type wherever it is defined."""
    classes: dict[str, list[str]] = {}
    fixtures: dict[str, set[str]] = {}
    for name in TESTS:
        for node in definitions()[name]:
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, []).append(name)
            elif isinstance(node, ast.FunctionDef) and any("fixture" in ast.unparse(it) for it in node.decorator_list):
                held = ast.unparse(node.returns) if node.returns else ""
                fixtures.setdefault(node.name, set()).add(held[9:-1] if held.startswith("Iterator[") else held)
    assert {name: found for name, found in classes.items() if len(found) > 1} == {}
    # Rows and tiles have a store each in the contract tests.
    assert {name: held for name, held in fixtures.items() if len(held) > 1 and name != "store"} == {}
