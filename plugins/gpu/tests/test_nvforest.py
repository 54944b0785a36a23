"""nvForest's CPU class: the bits of the library that trained, or a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from plugins.gpu.tests.nvforest_folder import ONLY_LINUX, TWO_TREELITES, add_nvforest
from skewless.contract.errors import PackageError, RequestError
from skewless.infra.models.runtimes.candidates import find_candidates
from skewless.infra.models.runtimes.certification import Reference, certify, reference_rows, same_bits
from skewless.infra.models.runtimes.choice import choose
from skewless.infra.models.runtimes.port import Matrix, Runtime
from skewless_gpu.nvforest import NvForestRuntime
from tests.worlds.model_cases import MAKERS, ModelCase, names_of
from tests.worlds.model_rows import FEATURES, any_rows, odd_rows

pytestmark = [ONLY_LINUX, TWO_TREELITES]

# Zeros that are missing are certified away; the others are refused before a row is scored.
REFUSED = {
    "lightgbm zero as missing": "differs from the library on",
    "xgboost dart": "its trees have weights",
    "xgboost ubj": "is not supported by nvForest (UnicodeDecodeError",
}


@pytest.fixture(scope="module", autouse=True)
def _nvforest() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        add_nvforest(patch)
        yield


def check(ours: Runtime, case: ModelCase, rows: Matrix) -> None:
    """Compare margins and scores with those of the library, and of its own runtime."""
    margins, scores = ours.margin(rows), ours.score(rows)
    assert same_bits(margins, case.raw(rows)).all()
    assert same_bits(scores, case.score(rows)).all()
    assert same_bits(scores, case.runtime.score(rows)).all()
    assert margins.flags.c_contiguous
    assert scores.flags.c_contiguous


def reference_of(case: ModelCase) -> Reference:
    rows = reference_rows(case.thresholds, FEATURES, seed=7)
    return Reference(rows, case.raw(rows), case.score(rows))


# nvForest is never tried for CatBoost.
@pytest.mark.parametrize("name", names_of({"lightgbm", "xgboost"}, REFUSED))
def test_every_bit_is_the_library_s(name: str, tmp_path: Path) -> None:
    case = MAKERS[name](tmp_path)
    ours = NvForestRuntime(name.partition(" ")[0], case.model_file, "cpu")
    assert (ours.n_features, ours.n_outputs) == (FEATURES, case.runtime.n_outputs)
    assert certify(ours, reference_of(case)).bit_equal
    for _, rows in odd_rows(case.thresholds):
        check(ours, case, rows)
        check(ours, case, rows[:1])
    assert ours.margin(rows[:0]).shape == ours.score(rows[:0]).shape == case.runtime.score(rows[:0]).shape

    @settings(max_examples=10, suppress_health_check=list(HealthCheck))
    @given(rows=any_rows(case.thresholds))
    def any_row(rows: Matrix) -> None:
        check(ours, case, rows)

    any_row()
    ours.close()
    with pytest.raises(PackageError, match="is closed"):
        ours.margin(rows)
    case.runtime.close()


@pytest.mark.parametrize("name", [*sorted(REFUSED)[:2], pytest.param("xgboost ubj", marks=pytest.mark.soak)])
def test_what_it_cannot_do_is_refused(name: str, tmp_path: Path) -> None:
    case = MAKERS[name](tmp_path)
    reference = reference_of(case)
    own = certify(case.runtime, reference)
    candidates = find_candidates(name.partition(" ")[0], "auto", case.model_file, "cpu")
    choice = choose(case.runtime, own, candidates, reference)
    assert choice.runtime is case.runtime
    assert [(item.runtime, item.role) for item in choice.trials] == [
        (case.runtime.runtime_id, "own"),
        ("nvforest-cpu", "refused"),
    ]
    assert REFUSED[name] in str(choice.trials[1].reason)
    case.runtime.close()


@pytest.fixture(scope="module")
def binary(lightgbm_binary: ModelCase) -> Iterator[NvForestRuntime]:
    """A runtime that tests only ask."""
    runtime = NvForestRuntime("lightgbm", lightgbm_binary.model_file, "cpu")
    yield runtime
    runtime.close()


def test_several_threads_at_once(lightgbm_binary: ModelCase, binary: NvForestRuntime) -> None:
    rows = np.random.default_rng(3).normal(size=(300, FEATURES))
    margins, scores = lightgbm_binary.raw(rows), lightgbm_binary.score(rows)

    def work(index: int) -> bool:
        count = 1 + index * 37 % 300
        if index % 2:
            return bool(same_bits(binary.margin(rows[:count]), margins[:count]).all())
        return bool(same_bits(binary.score(rows[:count]), scores[:count]).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(200)))


def test_results_belong_to_the_caller_and_the_matrix_is_only_read(binary: NvForestRuntime) -> None:
    rows = np.random.default_rng(4).normal(size=(40, FEATURES))
    rows.flags.writeable = False
    first = binary.score(rows)
    kept = first.copy()
    binary.score(np.ascontiguousarray(rows[::-1]))
    assert same_bits(first, kept).all()
    first[:] = 0.0
    assert same_bits(binary.score(rows), kept).all()


def test_a_matrix_that_no_runtime_takes_is_refused_and_the_runtime_goes_on(
    lightgbm_binary: ModelCase, binary: NvForestRuntime
) -> None:
    rows = np.zeros((4, FEATURES))
    for wrong in (np.asfortranarray(rows), rows.astype(np.float32), rows[:, :-1].copy()):
        with pytest.raises(RequestError):
            binary.score(wrong)  # type: ignore[arg-type]  # float32 is the point
    with pytest.raises(RequestError, match="has no contributions on nvForest"):
        binary.contributions(rows)
    assert same_bits(binary.score(rows), lightgbm_binary.score(rows)).all()


_LIKE = {"lightgbm": b"tree\nversion=v4\n", "xgboost": b'{"learner": 1}', "sklearn": b"no model"}


@pytest.mark.parametrize(
    ("algorithm", "content"),
    [
        pytest.param(algorithm, content, marks=[pytest.mark.soak] * (content != like))
        for algorithm, like in _LIKE.items()
        for content in (b"", *_LIKE.values())
    ],
)
def test_a_file_that_it_cannot_open_is_named(algorithm: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_bytes(content)
    with pytest.raises(PackageError, match=r"model\.txt"):
        NvForestRuntime(algorithm, path, "cpu")
