"""A release: wheels and sdists of skewless and of its plug-ins, in an environment that has only what the lock says."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.nightly.deploy.image import CACHE
from tests.worlds.requirements import ROOT
from tools.changed_plugins import plugins
from tools.dist import build

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1_200)]
REQUEST = '{"card_id": 9007199254740993, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"}'
LOCK = ROOT / "infra" / "deploy" / "image" / "jobs.txt"
GROUPS = ("commands", "databases", "deciders", "pages", "routes", "storages", "tokens")
LOAD = """
import json
from importlib.metadata import entry_points
points = [point for group in %r for point in entry_points(group=f"skewless.{group}")]
print(json.dumps([point.name for point in points if point.load()]))
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def bin_folder(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the locked packages and the wheel of the core."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    pip, wheels = (folder / "bin/pip", "--disable-pip-version-check"), str(CACHE / "wheels")
    run(*pip, "download", "--no-deps", "--require-hashes", "--dest", wheels, "-r", LOCK)
    install = (*pip, "install", "--no-deps", "--no-index", "--find-links", wheels)
    run(*install, "--require-hashes", "-r", LOCK)
    run(*install, str(next(dist.glob("skewless-*.whl"))))
    return folder / "bin"


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_an_sdist_gives_the_same_wheel(dist: Path, tmp_path: Path) -> None:
    sdists = sorted(dist.glob("*.tar.gz"))
    assert len(sdists) == 1 + len(plugins())
    for sdist in sdists:
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, sdist)
    for wheel in sorted(tmp_path.iterdir()):
        assert contents(wheel) == contents(dist / wheel.name), wheel.name


def test_the_core_alone_runs_the_tour_and_proves_its_predictions(bin_folder: Path, tmp_path: Path) -> None:
    def skewless(*words: str) -> str:
        return run(bin_folder / "skewless", *words, cwd=tmp_path)

    skewless("init", "shop", "--template", "fraud")
    for command in ("apply", "import", "materialize", "train"):
        skewless(command, "--repo", "shop")
    skewless("stream", "--replay", "shop/data/stream.parquet", "--until-idle", "--repo", "shop")
    skewless("predict", "fraud", "--repo", "shop", "--row", REQUEST)
    skewless("predict", "fraud", "--repo", "shop", "--in", "shop/data/requests.parquet", "--out", "shop/scored.parquet")
    report = json.loads(skewless("replay", "--repo", "shop", "--json"))
    assert report["compared"] > 100
    assert report["different"] == 0


def test_each_plugin_installs_into_the_core_from_its_own_wheel(bin_folder: Path, dist: Path) -> None:
    names = [f"skewless_{folder.name}" for folder in plugins()]
    for name in names:
        run(bin_folder / "pip", "install", "-q", "--no-deps", "--no-index", str(next(dist.glob(f"{name}-*.whl"))))
    listed = json.loads(run(bin_folder / "pip", "list", "--format", "json", "--disable-pip-version-check"))
    assert {name.replace("_", "-") for name in names} <= {package["name"].replace("_", "-") for package in listed}
    # Others need packages that are not in the lock.
    loaded = json.loads(run(bin_folder / "python", "-c", LOAD % (GROUPS,)))
    assert {"capacity", "export", "letters", "oidc", "oip", "postgresql", "s3", "ui"} <= set(loaded)
    assert "capacity" in run(bin_folder / "skewless", "--help")
