"""The table of real systems at the end of a run, of tests that pass, fail and are skipped in runs of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.programs import program
from tests.systems import ask_version

_ROOT = Path(__file__).parents[2]
_CONFTEST = """
from tests.systems import register_systems

def pytest_configure(config):
    register_systems(config)
"""
_TESTS = """
import subprocess
import pytest
from tests.servers.node import Node, running
from tests.servers.programs import program

@pytest.fixture(scope="session")
def store(tmp_path_factory):
    with running(Node(program("valkey"), tmp_path_factory.mktemp("store"))) as node:
        yield node

@pytest.fixture
def broken(store):
    raise RuntimeError

def test_starts(store):
    assert store.ask("PING")

def test_uses_what_another_started(request):
    assert request.getfixturevalue("store").ask("PING")

def test_fails(store):
    assert not store.ask("PING")

def test_has_no_fixture(broken):
    pass

def test_uses_none():
    subprocess.run(["true"], check=True)

def test_is_skipped():
    pytest.skip("no redis-server on this machine: install it")

def test_is_skipped_for_another_reason():
    pytest.skip("not today")
"""


@pytest.mark.parametrize("options", [(), ("-n", "2", "--dist", "loadfile")], ids=["alone", "workers"])
def test_a_run_names_each_system_with_its_version_and_the_tests_that_used_it(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_some.py").write_text(_TESTS)
    words = [sys.executable, "-m", "pytest", "-p", "no:typeguard", "-p", "no:randomly", *options, str(tmp_path)]
    paths = os.pathsep.join([str(_ROOT), os.environ["PYTHONPATH"]])
    run = subprocess.run(
        [*words, "-c", os.devnull, "--rootdir", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line.split() for line in run.stdout.partition("real systems")[2].splitlines()[1:4]]
    told = subprocess.run([program("valkey"), "--version"], capture_output=True, text=True, check=True).stdout
    assert lines == [
        ["system", "version", "passed", "failed", "skipped"],
        ["Redis", "missing", "0", "0", "1"],
        ["Valkey", told.partition("v=")[2].split()[0], "2", "2", "0"],
    ], run.stdout + run.stderr


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("prometheus, version 2.42.0+ds (branch: debian/sid)", "2.42.0+ds"),
        ("4.1.1", "4.1.1"),
        ("Chromium 131.0.6778.69 built on Debian 12", "131.0.6778.69"),
        ("postgres (PostgreSQL) 18.6", "18.6"),
        ("who?", "unknown"),
    ],
)
def test_a_version_is_the_first_number_with_a_point(said: str, version: str) -> None:
    assert ask_version([sys.executable, "-c", f"print({said!r})"]) == version
    assert ask_version([sys.executable, "-c", f"import sys; sys.stderr.write({said!r})"]) == version


def test_without_a_program_to_ask_a_system_is_missing() -> None:
    assert ask_version([]) == "missing"
