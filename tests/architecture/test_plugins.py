"""A plug-in is a package of its own, which the core finds by entry points alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.test_tree import MODULES, PACKAGES, ROOT
from tests.worlds.requirements import closure_of, hide_all_but, requirements_of
from tools.changed_plugins import plugins

PLUGINS = plugins()


def project_of(folder: Path) -> dict[str, Any]:
    """Return what the pyproject.toml of a folder says."""
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


CORE = project_of(ROOT)


def test_no_module_of_the_core_names_a_plugin() -> None:
    packages = [module.name for folder in PLUGINS for module in (folder / "src").glob("skewless_*")]
    pattern = re.compile(rf"\b({'|'.join(packages)})\b")
    # Templates are the code of users: their tests take a plug-in.
    core = [name for name in MODULES if name.partition("/")[0] in PACKAGES and "/template/" not in name]
    assert len(core) > 400
    assert [name for name in core if pattern.search((ROOT / name).read_text(encoding="utf-8"))] == []


def test_every_module_of_the_core_imports_where_no_plugin_is_installed() -> None:
    names = [name for name in MODULES if name.partition("/")[0] in PACKAGES and "/template/" not in name]
    modules = [name.removeprefix("skewless/").removesuffix(".py").replace("/", ".") for name in names]
    loaded = [f"skewless.{name}" for name in modules if name.rpartition(".")[2] != "__init__"]
    program = hide_all_but(closure_of(requirements_of("", "serve", "project", "cpu")))
    program += "import importlib, json\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
    program += "print(json.dumps([name for name in sys.modules if name.startswith('skewless_')]))"
    command = [sys.executable, "-c", program, *loaded]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
    assert len(loaded) > 400


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_plugin_is_a_package_with_a_page_a_check_and_an_extra(folder: Path) -> None:
    told, name = project_of(folder), folder.name.replace("_", "-")
    own = told["tool"]["skewless"]
    assert told["project"]["name"] == f"skewless-{name}"
    assert told["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == [f"src/skewless_{folder.name}"]
    assert f"skewless-{name}" in str(CORE["project"]["optional-dependencies"])
    assert f"$MYPY_CONFIG_FILE_DIR/{folder.relative_to(ROOT)}/src" in CORE["tool"]["mypy"]["mypy_path"]
    assert (folder / "tests/test_check.py").is_file()
    assert [place for place in (own["page"], *own["ports"]) if not (ROOT / place).exists()] == []


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_the_entry_points_of_a_plugin_are_installed(folder: Path) -> None:
    # Feast finds its plug-ins by the names of their classes.
    groups = project_of(folder)["project"].get("entry-points", {})
    assert groups or folder.name == "feast"
    for group, members in groups.items():
        installed = {point.name: point.value for point in entry_points(group=group)}
        assert members.items() <= installed.items(), f"{group}: run `make setup-dev`"
