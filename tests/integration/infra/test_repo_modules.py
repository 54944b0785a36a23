"""The modules of a repo's packages: each compilation loads them again, and an edit of them is noticed."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.infra.definitions.compiler.compile import compile_repo
from skewless.infra.definitions.compiler.repo_modules import repo_modules
from skewless.infra.definitions.plans.applied_plan import find_edited_files, read_applied
from skewless.infra.definitions.plans.planning import Planner
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.engine import connect
from tests.worlds.edits import edit
from tests.worlds.payments_data import TEMPLATE, write_sample

NOW = 1_750_000_000_000_000


@pytest.fixture(params=["package", "namespace package"])
def repo(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project whose ages come from ``ages.inner.days``, and whose delay comes from a JSON file."""
    repo = tmp_path / "repo"
    shutil.copytree(TEMPLATE, repo)
    write_sample(repo / "data", NOW)
    edit(repo, "timedelta(days=30)", "timedelta(days=DAYS)")
    edit(repo, '"skewless.delay": "1h"', '"skewless.delay": DELAY')
    edit(
        repo,
        "from feast import",
        "import json\nfrom ages.inner.days import DAYS\n"
        'DELAY = json.loads((Path(__file__).parent / "delay.json").read_text())\nfrom feast import',
    )
    inner = repo / "ages/inner"
    inner.mkdir(parents=True)
    (inner / "days.py").write_text("DAYS = 30\n")
    (repo / "delay.json").write_text('"1h"')
    if request.param == "package":
        (repo / "ages/__init__.py").write_text("")
        (inner / "__init__.py").write_text("")
    return repo


@pytest.fixture
def planner(repo: Path) -> Iterator[Planner]:
    with connect(repo / "spill", threads=1) as connection:
        yield Planner(repo=repo, state=ProjectState(repo / ".skewless"), connect=lambda: connection)


def edited(planner: Planner) -> list[str]:
    applied = read_applied(planner.state)
    assert applied is not None
    return find_edited_files(planner.repo, applied)


def test_the_next_compilation_has_the_new_code_of_a_package(repo: Path) -> None:
    before = compile_repo(repo).plan
    (repo / "ages/inner/days.py").write_text("DAYS = 300\n")
    after = compile_repo(repo).plan
    assert after != before
    assert not [name for name in sys.modules if name.split(".")[0] == "ages"]


def test_a_module_that_a_notebook_has_loaded_is_loaded_again_and_stays_its_own(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repo))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    own = importlib.import_module("ages.inner.days")
    before = compile_repo(repo).plan
    (repo / "ages/inner/days.py").write_text("DAYS = 300\n")
    assert compile_repo(repo).plan != before
    assert sys.modules["ages.inner.days"] is own
    for name in ("ages", "ages.inner", "ages.inner.days"):
        sys.modules.pop(name)


def test_a_package_of_the_same_name_from_elsewhere_is_hidden_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("repo", "elsewhere"):
        (tmp_path / place / "twin").mkdir(parents=True)
        (tmp_path / place / "twin/__init__.py").write_text("")
        (tmp_path / place / "twin/part.py").write_text(f"PLACE = {place!r}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    other = importlib.import_module("twin.part")
    with repo_modules(tmp_path / "repo"):
        assert importlib.import_module("twin.part").PLACE == "repo"
    assert importlib.import_module("twin.part") is other
    for name in ("twin", "twin.part"):
        sys.modules.pop(name)


def test_an_edit_of_any_module_that_the_compiler_loads_is_noticed(repo: Path, planner: Planner) -> None:
    planner.apply(NOW)
    assert edited(planner) == []
    names = ["ages/inner/days.py", "definitions.py", "models.py"]
    for number, name in enumerate(names, start=1):
        path = repo / name
        path.write_text(path.read_text() + "\n")
        assert edited(planner) == names[:number]
    assert f"{', '.join(names)} were edited without changed definitions" in " ".join(planner.plan().notes)
    planner.apply(NOW)
    assert edited(planner) == []


def test_an_apply_without_a_change_writes_nothing(planner: Planner) -> None:
    planner.apply(NOW)
    before = {path: path.stat().st_mtime_ns for path in planner.state.folder.rglob("*") if path.is_file()}
    report = planner.apply(NOW + 1)
    assert (report.applied, report.changes) == (True, [])
    assert {path: path.stat().st_mtime_ns for path in planner.state.folder.rglob("*") if path.is_file()} == before


def test_a_file_that_the_definitions_read_is_read_again(repo: Path, planner: Planner) -> None:
    planner.apply(NOW)
    (repo / "delay.json").write_text('"2h"')
    assert planner.plan().changes != []
    assert planner.apply(NOW + 1).changes != []
    assert planner.plan().changes == []


def test_an_apply_takes_note_of_files_that_are_not_loaded(repo: Path, planner: Planner) -> None:
    planner.apply(NOW)
    (repo / "expectations.py").write_text("SUITES = {}\n")
    assert planner.plan().notes
    planner.apply(NOW)
    assert not planner.plan().notes


def test_a_file_that_is_no_longer_loaded_is_forgotten(repo: Path, planner: Planner) -> None:
    planner.apply(NOW)
    edit(repo, "from ages.inner.days import DAYS", "DAYS = 30")
    planner.apply(NOW)
    shutil.rmtree(repo / "ages")
    assert edited(planner) == []


def test_a_removed_file_of_a_package_is_noticed(repo: Path, planner: Planner) -> None:
    planner.apply(NOW)
    (repo / "ages/inner/days.py").unlink()
    assert edited(planner) == ["ages/inner/days.py"]
