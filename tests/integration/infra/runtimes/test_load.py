"""Opening model files: what is refused, and what opening costs in imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
import xgboost as xgb

from skewless.contract.errors import PackageError
from skewless.infra.models.runtimes.candidates import open_runtime
from skewless.infra.models.runtimes.library import open_library

ROOT = Path(__file__).parents[4]
OFFLINE = ["lightgbm", "xgboost", "pandas", "scipy", "sklearn", "catboost", "feast", "pyarrow", "duckdb"]
SERVE = """
import json, sys
from pathlib import Path
import numpy as np
from skewless.infra.models.packages.package import open_package
from skewless.infra.models.packages.writer import write_package
from skewless.infra.models.packages.store import Aliases
from skewless.infra.models.runtimes.certification import certify
from skewless.infra.models.runtimes.candidates import open_runtime
runtimes = [open_runtime(a, Path(p)) for a, p in (("lightgbm", sys.argv[1]), ("xgboost", sys.argv[2]))]
scores = [float(r.score(np.full((1, r.n_features), np.nan))[0]) for r in runtimes]
print(json.dumps({"modules": sorted({name.split(".")[0] for name in sys.modules}), "scores": scores}))
"""


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[float]]:
    """Return a LightGBM file, an XGBoost file, and their scores of an all-null row."""
    folder = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(500, 4))
    label = (rows[:, 0] > 0).astype(float)
    one = lgb.train({"objective": "binary", "verbosity": -1, "num_threads": 1}, lgb.Dataset(rows, label), 5)
    two = xgb.train({"objective": "binary:logistic", "nthread": 1, "verbosity": 0}, xgb.DMatrix(rows, label), 5)
    (folder / "m.txt").write_text(one.model_to_string())
    two.save_model(folder / "m.json")
    null = np.full((1, 4), np.nan)
    scores = [float(np.asarray(one.predict(null))[0]), float(two.inplace_predict(null)[0])]
    return folder / "m.txt", folder / "m.json", scores


def test_serving_imports_no_training_library(model_files: tuple[Path, Path, list[float]]) -> None:
    lightgbm_file, xgboost_file, expected = model_files
    command = [sys.executable, "-c", SERVE, str(lightgbm_file), str(xgboost_file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["scores"] == expected
    assert set(found["modules"]) & set(OFFLINE) == set()
    assert done.stderr == ""


def test_a_runtime_names_library_and_version(model_files: tuple[Path, Path, list[float]]) -> None:
    one, two = open_runtime("lightgbm", model_files[0]), open_runtime("xgboost", model_files[1])
    assert one.runtime_id == f"lightgbm-capi-{lgb.__version__}"
    assert two.runtime_id == f"xgboost-capi-{xgb.__version__}"
    assert one.n_features == two.n_features == 4
    one.close()
    two.close()


@pytest.mark.parametrize(("algorithm", "at"), [("lightgbm", 0), ("xgboost", 1)])
def test_a_closed_runtime_is_refused_and_closing_twice_is_fine(
    model_files: tuple[Path, Path, list[float]], algorithm: str, at: int
) -> None:
    runtime = open_runtime(algorithm, (model_files[0], model_files[1])[at])
    runtime.close()
    runtime.close()
    with pytest.raises(PackageError, match="is closed"):
        runtime.score(np.zeros((1, 4)))
    with pytest.raises(PackageError, match="is closed"):
        runtime.contributions(np.zeros((1, 4)))


@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost", "sklearn", "catboost"])
@pytest.mark.parametrize("content", [b"", b"no model", b'{"learner": 1}', b"tree\nversion=v4\n"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, algorithm: str, content: bytes) -> None:
    path = tmp_path / "model.txt"
    path.write_bytes(content)
    with pytest.raises(PackageError, match=r"model\.txt"):
        open_runtime(algorithm, path)


def test_a_missing_file_and_an_unknown_algorithm_are_refused(
    tmp_path: Path, model_files: tuple[Path, Path, list[float]]
) -> None:
    with pytest.raises(PackageError, match="is missing"):
        open_runtime("lightgbm", tmp_path / "none.txt")
    with pytest.raises(PackageError, match="cubist"):
        open_runtime("cubist", model_files[0])


def test_a_library_that_is_not_installed_is_named() -> None:
    with pytest.raises(PackageError, match="no_such_booster"):
        open_library("no_such_booster", "lib", "VERSION", "last_error")
    with pytest.raises(PackageError, match="cannot be loaded"):
        open_library("numpy", "no_such_library", "VERSION", "last_error")
