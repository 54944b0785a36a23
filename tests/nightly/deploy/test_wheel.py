"""The wheel in a new environment with the locked packages of a server: it serves a package, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from skewless.version import __version__
from tests.nightly.deploy.image import CACHE
from tests.servers.prediction import PredictionServer
from tests.worlds.requirements import ROOT
from tests.worlds.trained import MODEL, ask, opened_copy

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]
LOCK = ROOT / "infra" / "deploy" / "image" / "server.txt"
# Of the packages with all connectors, without compiled modules; the lock of jobs installs LARGEST_TWICE.
LARGEST = 410_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that was installed without an index, but for one download of the locked files."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    python, wheels = folder / "bin" / "python", str(CACHE / "wheels")
    pip = (str(python), "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "download", "--no-deps", "--require-hashes", "--dest", wheels, "-r", str(LOCK))
    install = (*pip, "install", "--no-compile", "--no-deps", "--no-index")
    run(*install, "--require-hashes", "--find-links", wheels, "-r", str(LOCK))
    run(*install, str(wheel))
    return python


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_has_one_name_and_no_tests(wheel: Path) -> None:
    assert wheel.name == f"skewless-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {"skewless", f"skewless-{__version__}.dist-info"}
    assert [name for name in names if "/deploy/" in name] == []  # passwords may lie there
    assert {"skewless/serving/app.py", "skewless/infra/models/runtimes/lightgbm_capi.py"} <= set(names)


def test_the_wheel_serves_a_package(python: Path, trained: Path, tmp_path: Path) -> None:
    with opened_copy(trained, tmp_path / "project") as place:
        scores = place.predict(ask(3)).scores.tolist()
    settings = {"SKEWLESS_CLOCK": "file:.skewless/clock", "SKEWLESS_PORT": "0"}
    program = [str(python.parent / "skewless")]
    elsewhere = tmp_path  # so that the wheel is imported, not the checkout
    server = PredictionServer.start_release(elsewhere, tmp_path / "project", settings, program)
    status, body = server.post("/predict", json.dumps({"model": MODEL, "rows": ask(3)}))
    server.stop()
    assert (status, [prediction["score"] for prediction in body["predictions"]]) == (200, scores)


def test_the_environment_is_small(python: Path) -> None:
    (packages,) = python.parents[1].glob("lib/python3*/site-packages")
    sizes = [
        path.stat().st_size
        for folder in packages.iterdir()
        if folder.name not in {"pip", "setuptools"}
        for path in [folder, *folder.rglob("*")]
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert sum(sizes) < LARGEST
