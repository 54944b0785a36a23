"""CatBoost models have CatBoost's own bits without CatBoost, and what cannot have them is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pandas as pd
import pytest

from skewless.contract.errors import PackageError, RequestError
from skewless.infra.models.runtimes.candidates import open_runtime
from skewless.infra.models.runtimes.certification import Reference, certify, reference_rows
from skewless_catboost.json_model import hash_category
from skewless_catboost.trainer import export_json
from skewless_catboost.trees import CatBoostRuntime, link_scores
from skewless_export.readers import read_trees
from tests.worlds.tree_models import (
    SampleModel,
    catboost_table,
    hard_rows,
    library_margins,
    random_model,
    same_bits,
)

ROOT = Path(__file__).parents[4]


def find_differences(sample: SampleModel, seed: int, count: int) -> int:
    """Return the rows whose raw scores differ from CatBoost's, in one batch, in small ones or alone."""
    runtime = CatBoostRuntime(sample.model, "sample")
    table = read_trees("catboost", sample.model, "sample")
    rows = hard_rows(table, sample.categorical, seed, count)
    expected = library_margins(sample, rows)
    sizes = [count, *range(1, 12), 257]
    equal = np.ones(count, dtype=np.bool_)
    for size in sizes:
        parts = [runtime.margin(rows[at : at + size]) for at in range(0, min(count, 20 * size), size)]
        found = np.concatenate(parts).reshape(-1, runtime.n_outputs)
        equal[: len(found)] &= same_bits(found, expected[: len(found)])
    runtime.close()
    return int((~equal).sum())


def test_random_models_have_the_library_s_bits_on_hard_rows() -> None:
    wrong = {seed: find_differences(random_model("catboost", seed), seed, 1_000) for seed in range(100, 112)}
    assert not any(wrong.values()), wrong


@pytest.mark.soak
@pytest.mark.parametrize("largest", [12, 1000])
def test_many_random_models_have_the_library_s_bits_on_hard_rows(largest: int) -> None:
    models, count = (300, 2_000) if largest == 12 else (20, 1_000)
    wrong = {
        seed: find_differences(random_model("catboost", seed, largest=largest), seed, count) for seed in range(models)
    }
    sys.stdout.write(
        f"{models} models of up to {largest} rounds, {models * count:,} rows: {sum(wrong.values())} differ\n"
    )
    assert not any(wrong.values()), wrong


def test_a_category_has_the_library_s_hash() -> None:
    codes = [-1, 0, 5, 12, 123, 1234, 99_999, 123_456, 1_234_567, 12_345_678, 123_456_789, 1_234_567_890, 2**31 - 1]
    table = pd.DataFrame({"code": codes * 50})
    labels = np.arange(len(table)) % 2 * (table.code % 7)
    options = {"iterations": 80, "one_hot_max_size": 255, "logging_level": "Silent", "allow_writing_files": False}
    model = catboost.CatBoost(options).fit(catboost.Pool(table, labels, cat_features=[0]))
    content = json.loads(export_json(model, [table.to_numpy(np.float64)], (0,)))
    used = {value % 2**32 for value in content["features_info"]["categorical_features"][0]["values"]}
    assert len(used) > 8
    assert used <= {hash_category(code) for code in codes}


@pytest.fixture(scope="module")
def sample() -> SampleModel:
    """A model of symmetric trees with categories."""
    return random_model("catboost", 3)


def test_a_step_in_a_threshold_is_found_by_the_certificate(sample: SampleModel) -> None:
    table = read_trees("catboost", sample.model, "sample")
    rows = reference_rows(table.thresholds(), table.facts.n_features, seed=7)
    expected = library_margins(sample, rows)
    margins = expected[:, 0] if expected.shape[1] == 1 else expected
    content = json.loads(sample.model)
    runtime = CatBoostRuntime(sample.model, "sample")
    loss = content["model_info"]["params"]["loss_function"]["type"]
    reference = Reference(rows, np.ascontiguousarray(margins), link_scores(loss, margins))
    assert certify(runtime, reference).bit_equal
    borders = next(item["borders"] for item in content["features_info"]["float_features"] if item["borders"])
    borders[0] = float(np.nextafter(np.float32(borders[0]), np.float32(np.inf)))
    changed = CatBoostRuntime(json.dumps(content).encode(), "sample")
    with pytest.raises(PackageError, match="differs from the library"):
        certify(changed, reference)


def test_threads_do_not_disturb_each_other(sample: SampleModel) -> None:
    runtime = CatBoostRuntime(sample.model, "sample")
    table = read_trees("catboost", sample.model, "sample")
    rows = hard_rows(table, sample.categorical, 1, 500)
    expected = runtime.margin(rows)

    def score(index: int) -> bool:
        at, size = index % 400, index % 7 + 1
        return np.array_equal(
            runtime.margin(rows[at : at + size]).view(np.int64), expected[at : at + size].view(np.int64)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(score, range(2_000)))


def test_no_rows_give_no_scores(sample: SampleModel) -> None:
    runtime = CatBoostRuntime(sample.model, "sample")
    assert (
        len(runtime.margin(np.empty((0, runtime.n_features))))
        == len(runtime.score(np.empty((0, runtime.n_features))))
        == 0
    )


def test_a_closed_runtime_is_refused_and_closing_twice_is_fine(sample: SampleModel) -> None:
    runtime = CatBoostRuntime(sample.model, "sample")
    runtime.close()
    runtime.close()
    for count in (1, 100):
        for call in (runtime.margin, runtime.score, runtime.contributions):
            with pytest.raises(PackageError, match="is closed"):
                call(np.zeros((count, runtime.n_features)))


def find_other_contributions(sample: SampleModel, seed: int, count: int) -> int | None:
    """Return how many contributions differ from CatBoost's; None: the runtime refuses them."""
    runtime = CatBoostRuntime(sample.model, "sample")
    rows = hard_rows(read_trees("catboost", sample.model, "sample"), sample.categorical, seed, count)
    grow_policy = json.loads(sample.text.replace("'", '"').replace("False", "false"))["grow_policy"]
    if grow_policy != "SymmetricTree":
        with pytest.raises(RequestError, match=r"has no contributions, because .* symmetric"):
            runtime.contributions(rows)
        return None
    own = catboost.CatBoost()
    own.load_model(blob=sample.exact)
    table = catboost_table(rows, sample.categorical)
    pool = catboost.Pool(table, cat_features=list(sample.categorical))
    expected = np.ascontiguousarray(own.get_feature_importance(data=pool, type="ShapValues", thread_count=1))
    found = runtime.contributions(rows)
    assert np.allclose(found.sum(axis=-1), runtime.margin(rows), rtol=1e-9, atol=1e-9)
    assert same_bits(runtime.contributions(rows[:1]).reshape(1, -1), found[:1].reshape(1, -1)).all()
    return int((~same_bits(found.reshape(count, -1), expected.reshape(count, -1))).sum())


def test_contributions_have_the_library_s_bits_or_are_refused() -> None:
    wrong = {seed: find_other_contributions(random_model("catboost", seed), seed, 100) for seed in range(200, 212)}
    assert not any(wrong.values()), wrong
    assert {None, 0} == set(wrong.values())


@pytest.mark.soak
def test_contributions_of_many_random_models_have_the_library_s_bits() -> None:
    wrong = [find_other_contributions(random_model("catboost", seed), seed, 500) for seed in range(300)]
    models = sum(count is not None for count in wrong)
    sys.stdout.write(f"{models} models, {models * 500:,} rows with contributions: {sum(filter(None, wrong))} differ\n")
    assert not any(wrong)


def test_contributions_of_deep_trees_are_refused() -> None:
    matrix = np.random.default_rng(6).normal(size=(3_000, 12))
    options = {"depth": 11, "iterations": 1, "logging_level": "Silent", "allow_writing_files": False}
    model = catboost.CatBoost(options).fit(catboost.Pool(matrix.astype(np.float32), matrix.prod(axis=1)))
    runtime = CatBoostRuntime(export_json(model, [matrix], ()), "sample")
    expected = model.predict(matrix, prediction_type="RawFormulaVal")
    assert same_bits(runtime.margin(matrix)[:, None], expected[:, None]).all()
    with pytest.raises(RequestError, match="up to 10 levels"):
        runtime.contributions(matrix[:1])


def test_a_model_is_scored_without_catboost(sample: SampleModel, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(sample.model)
    width = read_trees("catboost", sample.model, "sample").facts.n_features
    code = (
        "import sys; from pathlib import Path; import numpy as np;"
        "from skewless.infra.models.runtimes.candidates import open_runtime;"
        f"found = open_runtime('catboost', Path({str(path)!r})).margin(np.zeros((1, {width})));"
        "print(found.ravel()[0].hex(), {'catboost', 'pandas', 'lightgbm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [float(library_margins(sample, np.zeros((1, width)))[0, 0]).hex(), "set()"]


def test_probabilities_of_several_classes_are_close_to_the_library_s() -> None:
    rng = np.random.default_rng(4)
    matrix = rng.normal(size=(2_000, 4))
    labels = np.digitize(matrix[:, 0] + rng.normal(size=2_000), [-1.0, 0.0, 1.0])
    options = {"loss_function": "MultiClass", "iterations": 50, "logging_level": "Silent", "allow_writing_files": False}
    model = catboost.CatBoost(options).fit(catboost.Pool(matrix.astype(np.float32), labels))
    margins = np.ascontiguousarray(model.predict(matrix, prediction_type="RawFormulaVal"))
    own = np.ascontiguousarray(model.predict(matrix, prediction_type="Probability"))
    scores = link_scores("MultiClass", margins)
    # Units in the last place: CatBoost approximates exp.
    assert np.abs(scores.view(np.int64) - own.view(np.int64)).max() <= 32
    assert np.allclose(scores.sum(axis=1), 1.0, rtol=1e-15)


def scaled(content: dict[str, Any]) -> None:
    content["scale_and_bias"][0] = 0.5


def of_a_gpu(content: dict[str, Any]) -> None:
    content["features_info"]["ctrs"][0]["ctr_type"] = "FloatTargetMeanValue"


def without_codes(content: dict[str, Any]) -> None:
    del content["skewless"]


def trained(**more: Any) -> bytes:  # noqa: ANN401 - parameters
    rng = np.random.default_rng(5)
    table = pd.DataFrame({"a": rng.integers(0, 40, 900), "b": rng.integers(0, 30, 900)})
    labels = (table.a * table.b % 5 > 2).astype(float)
    options = {"iterations": 30, "logging_level": "Silent", "allow_writing_files": False, **more}
    model = catboost.CatBoost({"loss_function": "Logloss", **options}).fit(
        catboost.Pool(table, labels, cat_features=[0, 1])
    )
    return export_json(model, [table.to_numpy(np.float64)], (0, 1))


@pytest.mark.parametrize(
    ("change", "problem"),
    [(scaled, "has a scale .got 0.5"), (of_a_gpu, "statistic that is not supported"), (without_codes, "'skewless'")],
)
def test_what_has_no_exact_scores_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], problem: str
) -> None:
    content = json.loads(trained(max_ctr_complexity=1))
    change(content)
    path = tmp_path / "model.json"
    path.write_bytes(json.dumps(content).encode())
    with pytest.raises(PackageError, match=rf"model file 'model.json': .*{problem}"):
        open_runtime("catboost", path)


def test_statistics_of_several_features_are_refused() -> None:
    with pytest.raises(PackageError, match="has a statistic of several features"):
        CatBoostRuntime(trained(max_ctr_complexity=2), "sample")
