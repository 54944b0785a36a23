"""The wheel beside a user's own code: one name in site-packages, typed, and no folder of the user in its way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from skewless.infra.reads.online.private_server import PrivateServer

ROOT = Path(__file__).parents[3]
TAKEN = ("training", "serving", "infra", "validation", "windows", "contract", "alerts", "log")
SCRIPT = """
from pathlib import Path

from skewless import Gate, LabelSource, ModelSpec, Project, SkewlessError, Split


def score_all(repo: Path, model: str) -> list[float]:
    project = Project(repo)
    table = project.predict(model, [{"card_id": 1, "shop_id": "a", "amount": 1.0}])
    return [float(score) for score in table["score"].to_pylist()]


def floor(spec: ModelSpec) -> float | None:
    gate: Gate = spec.gate
    split: Split = spec.split
    labels = spec.labels
    return gate.floor if split.test and isinstance(labels, LabelSource) and labels.label else None


try:
    score_all(Path("."), "fraud")
except SkewlessError as error:
    print(error.problem, error.fix)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel, and of the checkout nothing."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    venv.create(place / "env", symlinks=True)
    inside = place / "env/bin/python"
    (site,) = (place / "env/lib").glob("python*/site-packages")
    (wheel,) = place.glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return inside


def run(python: Path, code: str, *words: str, cwd: Path) -> str:
    """Run code in the environment as a user would, in a folder; return what it printed."""
    given = {**os.environ, "SKEWLESS_THREADS": "1", "PYTHONPATH": str(ROOT / "tests/as_installed")}
    command = [str(python), "-c", code, *words]
    done = subprocess.run(command, cwd=cwd, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_name_is_added(python: Path) -> None:
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    names = {path.name for path in site.iterdir()} - {"dependencies.pth"}
    assert {name for name in names if not name.endswith(".dist-info")} == {"skewless"}
    assert len(names) == 2
    for name in ("py.typed", "template/fraud/models.py", "infra/reads/online/advance.lua", "serving/process.py"):
        assert (site / "skewless" / name).is_file(), name


# In make test, the wheel has one name (see above), and the import contracts let no module use another.
@pytest.mark.soak
@pytest.mark.parametrize("first", ["ours", "own"])
def test_a_user_may_call_folders_and_modules_as_ours(
    python: Path, tmp_path: Path, request: pytest.FixtureRequest, first: str
) -> None:
    verb = "from skewless.cli import main; main()"
    run(python, verb, "init", "shop", "--template", "churn", cwd=tmp_path)
    shop = tmp_path / "shop"
    for name in TAKEN[:4]:
        (shop / name).mkdir()
        (shop / name / "__init__.py").write_text(f"OWN = {name!r}\n")
    for name in TAKEN[4:]:
        (shop / f"{name}.py").write_text(f"OWN = {name!r}\n")
    request.addfinalizer(PrivateServer(shop / ".skewless").stop)
    own = "; ".join(f"import {name}; assert {name}.OWN == {name!r}" for name in TAKEN)
    ours = "from skewless import Project; project = Project('.'); project.apply(); project.materialize()"
    trained = "print(project.train('churn').decision.promote)"
    code = f"{ours}; {own}; {trained}" if first == "ours" else f"{own}; {ours}; {trained}"
    assert run(python, f"import sys; sys.path[0] = '.'; {code}", cwd=shop) in {"True\n", "False\n"}


# In make test, the wheel has its py.typed (see above), and `make types` checks the scripts of the templates.
@pytest.mark.soak
def test_a_script_is_checked_by_its_types(python: Path, tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(SCRIPT)
    (tmp_path / "wrong.py").write_text(SCRIPT.replace("gate.floor if", "gate.flor if"))
    if (known := ROOT / ".mypy_cache").is_dir():  # without the types of the libraries, it runs ten times as long
        shutil.copytree(known, tmp_path / ".mypy_cache")
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--strict", "--python-executable", str(python)]
    checker = [sys.executable, "-m", "mypy", *options, "right.py", "wrong.py"]
    done = subprocess.run(checker, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert '"Gate" has no attribute "flor"' in done.stdout
    assert {line.partition(":")[0] for line in done.stdout.splitlines()[:-1]} == {"wrong.py"}
