"""nvForest's CPU class in a child process: the bits of the library that trained, or a refusal."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from skewless.contract.errors import PackageError, RequestError
from skewless.infra.runtimes.certification import Reference, certify, reference_rows, same_bits
from skewless.infra.runtimes.child import ChildRuntime
from skewless.infra.runtimes.choice import choose
from skewless.infra.runtimes.port import Matrix, Runtime
from tests.integration.infra.runtimes.children import ONLY_LINUX, candidate, child_of, open_files
from tests.integration.infra.runtimes.conftest import MAKERS, ModelCase, lightgbm_case, names_of, xgboost_case
from tests.integration.infra.runtimes.rows import FEATURES, any_rows, odd_rows

pytestmark = ONLY_LINUX

# Zeros that are missing are certified away; the others are refused before a row is scored.
REFUSED = {
    "lightgbm zero as missing": "differs from the library on",
    "xgboost dart": "its trees have weights",
    "xgboost ubj": "is not supported by nvForest (UnicodeDecodeError",
}


def check(ours: Runtime, case: ModelCase, rows: Matrix) -> None:
    """Compare margins and scores with those of the library, and of the runtime that shares the batches."""
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
    with child_of(name.partition(" ")[0], case.model_file) as child:
        assert (child.n_features, child.n_outputs) == (FEATURES, case.runtime.n_outputs)
        assert certify(child, reference_of(case)).bit_equal
        for _, rows in odd_rows(case.thresholds):
            check(child, case, rows)
            check(child, case, rows[:1])
        assert child.margin(rows[:0]).shape == child.score(rows[:0]).shape == case.runtime.score(rows[:0]).shape

        @settings(max_examples=10, suppress_health_check=list(HealthCheck))
        @given(rows=any_rows(case.thresholds))
        def any_row(rows: Matrix) -> None:
            check(child, case, rows)

        any_row()
    case.runtime.close()


@pytest.mark.parametrize("name", [*sorted(REFUSED)[:2], pytest.param("xgboost ubj", marks=pytest.mark.soak)])
def test_what_it_cannot_do_is_refused_and_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    case = MAKERS[name](tmp_path)
    reference = reference_of(case)
    own = certify(case.runtime, reference)
    before = open_files()
    choice = choose(case.runtime, own, [candidate(name.partition(" ")[0], case.model_file)], reference)
    assert open_files() <= before
    assert choice.runtime is case.runtime
    assert [(item.runtime, item.role) for item in choice.trials] == [
        (case.runtime.runtime_id, "own"),
        ("nvforest-cpu", "refused"),
    ]
    assert REFUSED[name] in str(choice.trials[1].reason)
    case.runtime.close()


@pytest.mark.parametrize("algorithm", [pytest.param("lightgbm", marks=pytest.mark.soak), "xgboost"])
def test_many_rows_then_few_then_more(algorithm: str, tmp_path: Path) -> None:
    """The memory that both see grows; what a larger question left in it is never an answer."""
    case = (
        lightgbm_case(tmp_path, {"objective": "binary"})
        if algorithm == "lightgbm"
        else xgboost_case(tmp_path, {"objective": "multi:softprob", "num_class": 4})
    )
    rows = np.random.default_rng(3).normal(size=(6_000, FEATURES))
    with child_of(algorithm, case.model_file) as child:
        for count in (1, 700, 3, 4_000, 1, 6_000, 63, 64, 65):
            check(child, case, rows[-count:])
            assert child.score(rows[:0]).shape == case.runtime.score(rows[:0]).shape
    case.runtime.close()


@pytest.fixture(scope="module")
def binary_child(lightgbm_binary: ModelCase) -> Iterator[ChildRuntime]:
    """A child that tests only ask."""
    with child_of("lightgbm", lightgbm_binary.model_file) as child:
        yield child


def test_several_threads_at_once(lightgbm_binary: ModelCase, binary_child: ChildRuntime) -> None:
    rows = np.random.default_rng(3).normal(size=(300, FEATURES))
    margins, scores = lightgbm_binary.raw(rows), lightgbm_binary.score(rows)

    def work(index: int) -> bool:
        count = 1 + index * 37 % 300
        if index % 2:
            return bool(same_bits(binary_child.margin(rows[:count]), margins[:count]).all())
        return bool(same_bits(binary_child.score(rows[:count]), scores[:count]).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(200)))


def test_results_belong_to_the_caller_and_the_matrix_is_only_read(binary_child: ChildRuntime) -> None:
    rows = np.random.default_rng(4).normal(size=(40, FEATURES))
    rows.flags.writeable = False
    first = binary_child.score(rows)
    kept = first.copy()
    binary_child.score(np.ascontiguousarray(rows[::-1]))
    assert same_bits(first, kept).all()
    first[:] = 0.0
    assert same_bits(binary_child.score(rows), kept).all()


def test_a_matrix_that_no_runtime_takes_is_refused_and_the_child_goes_on(
    lightgbm_binary: ModelCase, binary_child: ChildRuntime
) -> None:
    rows = np.zeros((4, FEATURES))
    for wrong in (np.asfortranarray(rows), rows.astype(np.float32), rows[:, :-1].copy()):
        with pytest.raises(RequestError):
            binary_child.score(wrong)  # type: ignore[arg-type]  # float32 is the point
    with pytest.raises(RequestError, match="has no contributions in a child"):
        binary_child.contributions(rows)
    assert same_bits(binary_child.score(rows), lightgbm_binary.score(rows)).all()


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
    before = open_files()
    with (
        pytest.raises(PackageError, match=r"model\.txt.*cannot be opened in a child process"),
        child_of(algorithm, path),
    ):
        pass
    assert open_files() <= before
