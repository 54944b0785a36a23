"""The page of dependencies has a line for each package of the pyprojects, and the bill of materials its licence."""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from tests.worlds.requirements import ROOT
from tools.changed_plugins import plugins
from tools.sbom import read_licence

ROW = re.compile(r"^\| `([a-z0-9-]+)` \| (.+) \| (.+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
NAME = re.compile(r"[A-Za-z0-9_.-]+")
PAGE = ROOT / "docs" / "dependencies.md"


def direct_names() -> set[str]:
    names = set[str]()
    for folder in (ROOT, *plugins()):
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for listed in (project.get("dependencies", ()), *project.get("optional-dependencies", {}).values()):
            names |= {match[0].lower().replace("_", "-") for text in listed if (match := NAME.match(text))}
    return {name for name in names if not name.startswith("skewless")}


def test_the_page_has_a_line_for_each_direct_dependency() -> None:
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert sorted(row[0] for row in rows) == sorted(direct_names())
    assert len({tuple(row[1:]) for row in rows}) > len(rows) / 2


def licences(text: str) -> set[str]:
    return set(re.findall(r"Apache|MIT|BSD|MPL|LGPL|(?<!L)GPL|CC0|PSF|ISC|Zlib", text))


def test_the_licence_of_each_line_is_that_of_the_installed_package() -> None:
    rows = {row[0]: row[4] for row in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    installed = {name: licences(read_licence(name)) for name in rows}
    named = {name: found for name, found in installed.items() if found}
    assert {name: licences(rows[name]) for name in named} == named
    assert len(named) > 0.85 * len(rows)


@pytest.mark.parametrize("name", ["feast", "duckdb", "redis", "lightgbm"])
def test_a_licence_is_read_from_the_package(name: str) -> None:
    assert re.search("Apache|MIT", read_licence(name))
    assert read_licence(f"no-such-{name}") == ""


def test_each_installed_component_has_its_licence_and_hashes() -> None:
    components = json.loads((ROOT / "sbom.json").read_text(encoding="utf-8"))["components"]
    without = [item["name"] for item in components if "licenses" not in item and read_licence(item["name"])]
    assert without == []
    assert sum("licenses" in item for item in components) > 0.9 * len(components)
    assert all(any(fact["name"] == "skewless:sha256" for fact in item["properties"]) for item in components)


def test_the_page_names_each_module_that_uses_a_private_part_of_another_package() -> None:
    own = "serving/http/request_reader.py"  # the private part is of the same module
    folders = [ROOT / name for name in ("infra", "serving", "training", "validation", "skewless")]
    folders += [folder / "src" for folder in plugins()]
    files = {path for folder in folders for path in folder.rglob("*.py")}
    private = {path.relative_to(ROOT).as_posix() for path in files if "noqa: SLF001" in path.read_text("utf-8")} - {own}
    table = PAGE.read_text(encoding="utf-8").partition("## Private parts")[2]
    assert len(private) >= 5
    assert sorted(name for name in private if f"`{name}`" not in table) == []
    named = [name for name in re.findall(r"`([a-z_/]+/(?:[a-z_]+\.py)?)`", table) if not (ROOT / name).exists()]
    assert named == []
