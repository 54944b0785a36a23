"""A project that the command line itself made, at several stages; each test that changes it takes a copy.

Its clock began at noon of one day: what is known, late or expired does not depend on when the tests run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from skewless.contract.clock import OffsetClock
from skewless.infra.reads.online.private_server import PrivateServer
from tests.worlds.built_once import built_once
from tests.worlds.command_line import done
from tests.worlds.payments_data import write_payments
from tests.worlds.trained import NOW

SETTINGS = {"SKEWLESS_PORT": "0", "SKEWLESS_THREADS": "1"}


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the four projects and the time at which they were ready; only ever copied."""
    return built_once(tmp_path_factory, "cli", _make_projects)


@pytest.fixture(scope="session")
def clock_file(projects: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the clock of all four projects, which continues from that time; leave it alone."""
    path = tmp_path_factory.mktemp("clock") / "clock"
    OffsetClock.create(path).set(int((projects / "ready").read_text()))
    return path


@pytest.fixture(scope="session")
def places(projects: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Four projects: ``new`` after init, ``applied``, ``walked`` to a champion, and ``unasked``, as walked was then."""
    root = shutil.copytree(projects, tmp_path_factory.mktemp("cli"), dirs_exist_ok=True)
    yield {name: root / name for name in ("new", "applied", "walked", "unasked")}
    PrivateServer(root / "walked/.skewless").stop()


def _make_projects(root: Path) -> None:
    root.mkdir()
    new, applied, walked, unasked = (root / name for name in ("new", "applied", "walked", "unasked"))
    clock = OffsetClock.create(root / "clock")
    clock.set(NOW)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings(root / "clock").items():
            patch.setenv(name, value)
        write_payments(new)
        shutil.copytree(new, applied)
        done("apply", "--repo", applied)
        shutil.copytree(applied, walked)
        done("materialize", "--repo", walked)
        done("train", "--repo", walked)
        shutil.copytree(walked, unasked, ignore=shutil.ignore_patterns("redis"))
    PrivateServer(walked / ".skewless").stop()
    (root / "ready").write_text(str(clock.now_us()))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the verbs of each test read; tests of other folders never see it."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def stages(places: dict[str, Path], clock_file: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The four projects, with their clock in the verbs of this test."""
    for name, value in settings(clock_file).items():
        monkeypatch.setenv(name, value)
    return places


@pytest.fixture
def new(stages: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a project as ``init`` left it."""
    return _copy(stages["new"], tmp_path)


@pytest.fixture
def applied(stages: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a project with a plan in force, nothing materialised."""
    return _copy(stages["applied"], tmp_path)


@pytest.fixture
def walked(stages: dict[str, Path]) -> Path:
    """The one project with rows online and a champion; leave its definitions and data alone.

    Its predictions, versions and alias moves are those of whatever tests ran before.
    """
    return stages["walked"]


@pytest.fixture
def unasked(stages: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a project with a champion that never predicted; without its online store."""
    return _copy(stages["unasked"], tmp_path)


def _copy(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place, tmp_path / "project"))


def settings(clock_file: Path) -> dict[str, str]:
    return {**SETTINGS, "SKEWLESS_CLOCK": f"file:{clock_file}"}
