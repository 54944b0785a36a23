"""Trees as arrays have scikit-learn's own bits, together and row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skewless.contract.errors import PackageError, RequestError
from skewless.contract.labels import LabelSource
from skewless.contract.spec import ModelSpec, Split, Task
from skewless.infra.models.runtimes.candidates import open_runtime
from skewless.infra.models.runtimes.certification import Reference, certify, reference_rows, same_bits
from skewless.infra.models.runtimes.port import Matrix, Runtime, Scores, find_leaves
from skewless.training.train import find_trainer
from skewless.training.trainers.port import TrainedModel, TrainingSet

FEATURES = 4
SPEC = ModelSpec(
    name="late",
    service="s",
    labels=LabelSource(path="p", event_time="e", known_time="k", label="y"),
    algorithm="sklearn",
    split=Split(test=timedelta(days=1)),
    rounds=40,
)


@dataclass(frozen=True)
class ArrayCase:
    """A model in our runtime, beside scikit-learn's."""

    runtime: Runtime
    model: TrainedModel
    path: Path


def make_case(folder: Path, task: Task, categorical: tuple[int, ...]) -> ArrayCase:
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(3000, FEATURES))
    matrix[:, 1] = 2 * rng.integers(0, 30, 3000)
    matrix[:, 3] = rng.integers(0, 5, 3000)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    target = np.nan_to_num(matrix[:, 2]) + (np.nan_to_num(matrix[:, 1]) % 3 == 0) + rng.normal(size=3000) / 2
    labels = target if task == "regression" else (target > 0.5).astype(float)
    rows = TrainingSet(matrix=matrix, labels=labels, feature_names=("a", "b", "c", "d"), categorical=categorical)
    model = find_trainer("sklearn").train(rows, replace(SPEC, task=task))
    path = folder / model.file_name
    path.write_bytes(model.model)
    return ArrayCase(open_runtime("sklearn", path), model, path)


MAKERS: dict[str, Callable[[Path], ArrayCase]] = {
    "binary": lambda folder: make_case(folder, "binary", ()),
    "binary with categories": lambda folder: make_case(folder, "binary", (1, 3)),
    "regression": lambda folder: make_case(folder, "regression", ()),
    "regression with categories": lambda folder: make_case(folder, "regression", (3,)),
}


# Numbers alone are columns of the models with categories, too.
_NUMBERS_ALONE = [pytest.param(name, marks=pytest.mark.soak) for name in ("binary", "regression")]


@pytest.fixture(scope="module", params=["binary with categories", "regression with categories", *_NUMBERS_ALONE])
def array_case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ArrayCase:
    return MAKERS[request.param](tmp_path_factory.mktemp("model"))


def check_rows(array_case: ArrayCase, rows: Matrix) -> None:
    """Compare margins and scores, all rows together and each alone."""
    for ours, theirs in (
        (array_case.runtime.margin, array_case.model.raw_margin),
        (array_case.runtime.score, array_case.model.score),
    ):
        expected = theirs(rows)
        assert same_bits(ours(rows), expected).all()
        alone: Scores = np.array([ours(rows[at : at + 1])[0] for at in range(len(rows))])
        assert same_bits(alone, expected).all()


def test_reference_rows_are_certified(array_case: ArrayCase) -> None:
    rows = reference_rows(array_case.model.thresholds, FEATURES, seed=7)
    certificate = certify(
        array_case.runtime, Reference(rows, array_case.model.raw_margin(rows), array_case.model.score(rows))
    )
    assert (certificate.bit_equal, certificate.runtime_id) == (True, f"tree-arrays-{np.__version__}")


def test_categories_that_no_row_had_and_numbers_that_are_no_category(array_case: ArrayCase) -> None:
    rng = np.random.default_rng(1)
    odd = np.array([0, 1, 2, 3, 4, 5, 57, 58, 59, 60, 61, 255, 256, 1e9, -1, -0.0, 0.5, 2.999, np.nan, np.inf, -np.inf])
    check_rows(array_case, rng.choice(odd, (200, FEATURES)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_row(array_case: ArrayCase, data: st.DataObject) -> None:
    near = st.sampled_from(sorted({value for _, value in array_case.model.thresholds})).flatmap(
        lambda at: st.sampled_from([at, np.nextafter(at, -np.inf), np.nextafter(at, np.inf)])
    )
    row = st.lists(st.floats() | near, min_size=FEATURES, max_size=FEATURES)
    check_rows(array_case, np.array(data.draw(st.lists(row, min_size=1, max_size=6)), dtype=np.float64))


def test_no_rows_give_no_scores(array_case: ArrayCase) -> None:
    rows = np.empty((0, FEATURES))
    assert array_case.runtime.margin(rows).shape == array_case.runtime.score(rows).shape == (0,)


def test_contributions_are_refused(array_case: ArrayCase) -> None:
    with pytest.raises(RequestError, match="has no contributions"):
        array_case.runtime.contributions(np.zeros((1, FEATURES)))


def test_leaves_are_refused(array_case: ArrayCase) -> None:
    with pytest.raises(RequestError, match=r"runtime 'tree-arrays.*has no leaf indices.*lightgbm or xgboost"):
        find_leaves(array_case.runtime, np.zeros((1, FEATURES)))


def test_another_width_is_refused(array_case: ArrayCase) -> None:
    with pytest.raises(RequestError, match="does not fit the model"):
        array_case.runtime.score(np.zeros((1, FEATURES + 1)))


def test_a_closed_runtime_is_refused(array_case: ArrayCase) -> None:
    again = open_runtime("sklearn", array_case.path)
    again.close()
    again.close()
    with pytest.raises(PackageError, match="is closed"):
        again.score(np.zeros((1, FEATURES)))


def test_a_file_with_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, roots=np.array([{"a": 1}], dtype=object))
    with pytest.raises(PackageError, match=r"model\.npz.*not a model of tree arrays"):
        open_runtime("sklearn", path)
