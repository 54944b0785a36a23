"""Environments of peers are made once for each lock file; one that cannot be made is told."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pip
import pytest

from benchmarks import environments
from benchmarks.contestant import ContestantError


@pytest.fixture
def lock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the lock file of a peer named ``own``."""
    monkeypatch.setattr(environments, "_LOCKS", tmp_path)
    return tmp_path / "requirements-own.txt"


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with our pip alone, since a new pip takes seconds to install; only copied."""
    folder = tmp_path_factory.mktemp("environment") / "empty"
    venv.create(folder)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    shutil.copytree(Path(pip.__file__).parent, packages / "pip")
    return folder


@pytest.fixture
def _copied(monkeypatch: pytest.MonkeyPatch, empty_environment: Path) -> None:
    def create(folder: Path, *, with_pip: bool, clear: bool) -> None:
        assert (with_pip, clear) == (True, True)
        shutil.copytree(empty_environment, folder, symlinks=True)

    monkeypatch.setattr(venv, "create", create)


def test_an_environment_is_made_once_of_hashes_alone(
    lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a program in the place of its Python: the tests below install."""
    exit_code = 0

    def create(folder: Path, *, with_pip: bool, clear: bool) -> None:
        assert (with_pip, clear) == (True, True)
        python = folder / "bin/python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\necho planted >&2\nexit {exit_code}\n')
        python.chmod(0o755)

    monkeypatch.setattr(venv, "create", create)
    lock.write_text("numpy==2.0.0\n")
    exit_code = 1
    with pytest.raises(ContestantError, match=r"own cannot be installed here:\nplanted"):
        environments.python_of("own", tmp_path / "cache")
    exit_code = 0
    python = environments.python_of("own", tmp_path / "cache")
    assert environments.python_of("own", tmp_path / "cache") == python
    words = f"-m pip install --quiet --no-deps --require-hashes -r {lock}\n"
    assert (tmp_path / "called").read_text() == 2 * words
    lock.write_text("numpy==2.0.1\n")
    assert environments.python_of("own", tmp_path / "cache") != python


@pytest.mark.soak
@pytest.mark.usefixtures("_copied")
def test_an_environment_is_made_once_and_is_not_ours(lock: Path, tmp_path: Path) -> None:
    lock.write_text("# nothing\n")
    python = environments.python_of("own", tmp_path / "cache")
    made = Path(python).stat().st_ctime_ns
    code = "import importlib.util as u, sys; print(sys.prefix, u.find_spec('feast'))"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == [str(Path(python).parents[1]), "None"]
    assert environments.python_of("own", tmp_path / "cache") == python
    assert Path(python).stat().st_ctime_ns == made


@pytest.mark.soak
@pytest.mark.usefixtures("_copied")
def test_a_requirement_without_a_hash_is_refused(lock: Path, tmp_path: Path) -> None:
    lock.write_text("numpy==2.0.0\n")
    with pytest.raises(ContestantError, match=r"own cannot be installed here.*\n.*[Hh]ash"):
        environments.python_of("own", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/made"))
