"""The libraries that a command may import: one that changes nothing answers at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.private_server import PrivateServer
from tests.architecture.test_import_budget import OFFLINE, ROOT, packages
from tests.integration.cli.conftest import SETTINGS, settings
from tests.worlds.command_line import ROWS, done
from tests.worlds.edits import edit

# The modules after each of some commands.
PROBE = """
import json, sys
from skewless.cli import create_app
modules = []
for words in json.loads(sys.argv[2]):
    create_app()(words, standalone_mode=False)
    modules.append(sorted(sys.modules))
with open(sys.argv[1], "w") as file:
    json.dump(modules, file)
"""
ROW = json.dumps(ROWS[0])
# Libraries that are loaded only to log, to draw tables on a terminal, or by a class that we do without.
SLOW = {"attr", "dotenv", "pydantic_settings", "rich", "structlog"}
# Libraries of the online store's clients: a proof reads the log alone, see test_templates.py.
ONLINE = {"asyncio", "redis"}
# By command, the libraries that it does without, in addition to those of offline work. One process runs them all: a
# library that one of them imports stays, so each may import what those before it may.
BUDGETS: dict[tuple[str, ...], set[str]] = {
    ("alerts",): SLOW | {"duckdb", "pyarrow", "numpy"},
    ("runs", "list"): SLOW | {"duckdb", "pyarrow", "numpy"},
    ("keys", "list"): SLOW | {"duckdb", "pyarrow", "numpy"},
    ("versions", "fraud"): SLOW | {"duckdb", "pyarrow"},
    ("status",): SLOW | {"duckdb"},
    ("doctor",): SLOW | {"duckdb"},
    ("get", "card_days", "--key", "card_id=9007199254740993"): SLOW | {"duckdb"},
    ("predict", "--row", ROW): SLOW | {"duckdb"},
    ("rollout",): SLOW | {"duckdb"},
    ("triggers", "fraud"): SLOW | {"duckdb"},
    ("freshness",): set(),
    ("materialize",): set(),
    ("parity",): set(),
}


@pytest.fixture(scope="module")
def first_apply(
    places: dict[str, Path], clock_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, str], set[str]]]:
    """A project with a champion, the environment of its commands, and the modules that an apply of a change loaded."""
    repo = tmp_path_factory.mktemp("imports") / "p"
    shutil.copytree(places["unasked"], repo)
    environment = {**os.environ, **SETTINGS, **settings(clock_file)}
    edit(repo, "rounds=50", "rounds=51", file="models.py")
    (modules,) = loaded_by(repo, environment, ("apply",))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings(clock_file).items():
            patch.setenv(name, value)
        done("materialize", "--repo", repo)
    ProjectState((repo / ".skewless").resolve()).database.close()  # other processes follow
    yield repo, environment, modules
    PrivateServer(repo / ".skewless").stop()


@pytest.fixture(scope="module")
def trained_project(first_apply: tuple[Path, dict[str, str], set[str]]) -> tuple[Path, dict[str, str]]:
    """The project, applied by a process of its own, and the environment of its commands."""
    return first_apply[:2]


@pytest.fixture(scope="module")
def budgeted_modules(trained_project: tuple[Path, dict[str, str]]) -> dict[tuple[str, ...], set[str]]:
    """The modules of a process that runs the commands with a budget, after each of them."""
    return dict(zip(BUDGETS, loaded_by(*trained_project, *BUDGETS), strict=True))


def loaded_by(repo: Path, environment: dict[str, str], *commands: tuple[str, ...]) -> list[set[str]]:
    """Return the modules that a process has imported at the end of each of its commands."""
    out = repo.with_name("modules.json")
    words = json.dumps([[*command, "--repo", str(repo)] for command in commands])
    process = subprocess.run(
        [sys.executable, "-c", PROBE, str(out), words],
        cwd=ROOT,
        # A test runner sets COLUMNS: rich wraps what is wider than a terminal, and nothing in a pipe.
        env={name: value for name, value in environment.items() if name != "COLUMNS"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return [set(modules) for modules in json.loads(out.read_text())]


def test_each_command_may_import_what_those_before_it_may() -> None:
    assert all(later <= earlier for earlier, later in pairwise(BUDGETS.values()))


@pytest.mark.parametrize("words", BUDGETS, ids=lambda words: words[0])
def test_a_command_imports_what_it_needs(
    words: tuple[str, ...], budgeted_modules: dict[tuple[str, ...], set[str]]
) -> None:
    assert packages(budgeted_modules[words]) & (OFFLINE | BUDGETS[words]) == set()


def test_help_imports_no_library_of_data_or_settings(trained_project: tuple[Path, dict[str, str]]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "skewless.cli", "--help"]
    process = subprocess.run(command, cwd=ROOT, env=trained_project[1], capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert packages(modules) & (OFFLINE | {"duckdb", "numpy", "pyarrow", "pydantic", "rich", "structlog"}) == set()


def test_to_register_definitions_feast_does_not_load_its_store_of_files(
    first_apply: tuple[Path, dict[str, str], set[str]],
) -> None:
    assert packages(first_apply[2]) & {"dask", "scipy"} == set()
