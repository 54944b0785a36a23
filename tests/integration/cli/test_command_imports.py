"""The libraries that a command may import: one that changes nothing answers at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.infra.online.private_server import PrivateServer
from tests.architecture.test_import_budget import OFFLINE, ROOT, packages
from tests.integration.cli.conftest import SETTINGS, settings
from tests.worlds.command_line import ROWS
from tests.worlds.edits import edit

PROBE = """
import json, sys
from skewless.cli import create_app
create_app()(sys.argv[2:], standalone_mode=False)
with open(sys.argv[1], "w") as file:
    json.dump(sorted(sys.modules), file)
"""
ROW = json.dumps(ROWS[0])
# Libraries that are loaded only to log, to draw tables on a terminal, or by a class that we do without.
SLOW = {"attr", "dotenv", "pydantic_settings", "rich", "structlog"}
# Libraries of the online store's clients: a proof reads the log alone.
ONLINE = {"asyncio", "redis"}
# By command, the libraries that it does without, in addition to those of offline work and to the slow ones.
BUDGETS: dict[tuple[str, ...], set[str]] = {
    ("plan",): set(),
    ("apply",): set(),
    ("status",): {"duckdb"},
    ("doctor",): {"duckdb"},
    ("get", "card_days", "--key", "card_id=9007199254740993"): {"duckdb"},
    ("predict", "--row", ROW): {"duckdb"},
    ("versions", "fraud"): {"duckdb", "pyarrow"},
    ("rollout",): {"duckdb"},
    ("triggers", "fraud"): {"duckdb"},
    ("alerts",): {"duckdb", "pyarrow", "numpy"},
    ("runs", "list"): {"duckdb", "pyarrow", "numpy"},
    ("letters", "list"): {"duckdb"},
    ("keys", "list"): {"duckdb", "pyarrow", "numpy"},
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
    modules = loaded_by(repo, environment, "apply")
    loaded_by(repo, environment, "materialize")
    yield repo, environment, modules
    PrivateServer(repo / ".skewless").stop()


@pytest.fixture(scope="module")
def trained_project(first_apply: tuple[Path, dict[str, str], set[str]]) -> tuple[Path, dict[str, str]]:
    """The project, applied by a process of its own, and the environment of its commands."""
    return first_apply[:2]


def loaded_by(repo: Path, environment: dict[str, str], *words: str) -> set[str]:
    """Return the modules that a command has imported when it ends."""
    out = repo.with_name("modules.json")
    command = [sys.executable, "-c", PROBE, str(out), *words, "--repo", str(repo)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(out.read_text()))


@pytest.mark.parametrize("words", BUDGETS, ids=lambda words: words[0])
def test_a_command_imports_what_it_needs(words: tuple[str, ...], trained_project: tuple[Path, dict[str, str]]) -> None:
    modules = loaded_by(*trained_project, *words)
    assert packages(modules) & (OFFLINE | SLOW | BUDGETS[words]) == set()


@pytest.mark.parametrize("command", ["freshness", "materialize", "parity"])
def test_a_command_that_reads_the_log_does_without_pandas(
    command: str, trained_project: tuple[Path, dict[str, str]]
) -> None:
    assert packages(loaded_by(*trained_project, command)) & OFFLINE == set()


def test_help_imports_no_library_of_data_or_settings(trained_project: tuple[Path, dict[str, str]]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "skewless.cli", "--help"]
    done = subprocess.run(command, cwd=ROOT, env=trained_project[1], capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert packages(modules) & (OFFLINE | {"duckdb", "numpy", "pyarrow", "pydantic", "rich", "structlog"}) == set()


def test_definitions_that_changed_are_compiled(first_apply: tuple[Path, dict[str, str], set[str]]) -> None:
    """Those that did not change are not: see the budget of ``plan``."""
    assert "feast" in first_apply[2]
    assert "feast" in OFFLINE


def test_a_proof_imports_neither_pandas_nor_a_client(trained_project: tuple[Path, dict[str, str]]) -> None:
    repo, environment = trained_project
    command = [sys.executable, "-m", "skewless.cli", "predict", "--row", ROW, "--json", "--repo", str(repo)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    prediction = json.loads(done.stdout)["predictions"][0]["id"]
    for words in (("why", prediction), ("why", prediction, "--no-proof"), ("replay",)):
        assert packages(loaded_by(repo, environment, *words)) & (OFFLINE | SLOW | ONLINE) == set()
