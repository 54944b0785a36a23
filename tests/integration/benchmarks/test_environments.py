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


@pytest.fixture(autouse=True)
def _copied(monkeypatch: pytest.MonkeyPatch, empty_environment: Path) -> None:
    def create(folder: Path, *, with_pip: bool, clear: bool) -> None:
        assert (with_pip, clear) == (True, True)
        shutil.copytree(empty_environment, folder, symlinks=True)

    monkeypatch.setattr(venv, "create", create)


def test_an_environment_is_made_once_and_is_not_ours(lock: Path, tmp_path: Path) -> None:
    lock.write_text("# nothing\n")
    python = environments.python_of("own", tmp_path / "cache")
    made = Path(python).stat().st_ctime_ns
    code = "import importlib.util as u, sys; print(sys.prefix, u.find_spec('feast'))"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == [str(Path(python).parents[1]), "None"]
    assert environments.python_of("own", tmp_path / "cache") == python
    assert Path(python).stat().st_ctime_ns == made


def test_a_requirement_without_a_hash_is_refused(lock: Path, tmp_path: Path) -> None:
    lock.write_text("numpy==2.0.0\n")
    with pytest.raises(ContestantError, match=r"own cannot be installed here.*\n.*[Hh]ash"):
        environments.python_of("own", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*/made"))
