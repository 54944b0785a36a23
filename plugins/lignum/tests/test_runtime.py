"""Bits of lignum: those of the library that trained, or a refusal; it runs no code that somebody else has planted."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from skewless.contract.errors import PackageError, RequestError
from skewless.infra.models.runtimes.candidates import find_candidates
from skewless.infra.models.runtimes.certification import Reference, certify, reference_rows, same_bits
from skewless.infra.models.runtimes.choice import choose
from skewless.infra.models.runtimes.fallback import FallbackRuntime
from skewless.infra.models.runtimes.port import Matrix
from skewless_export.readers import read_trees
from skewless_lignum import runtime as subject
from skewless_lignum.runtime import LignumRuntime, private_folder
from tests.worlds.model_cases import FEATURES, MAKERS, ModelCase, lightgbm_case, names_of
from tests.worlds.model_rows import any_rows, odd_rows
from tests.worlds.tree_models import hard_rows, library_margins, random_model

lignum = pytest.importorskip("lignum", reason="pip install pylignum")
NEEDS_COMPILER = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler: apt-get install gcc")
# lignum opens a dart model of XGBoost as one without trees; the link needs XGBoost's JSON, which our trainer writes.
REFUSED = {
    "xgboost dart": "has trees with weights",
    "xgboost ubj": "is not a tree model in JSON",
    "catboost categorical": "has categories",
}
REASONS = (*REFUSED.values(), "with symmetric (oblivious) trees", "has no link that can be separated")
_PLANTED = """
#include <stdio.h>
__attribute__((constructor)) static void run(void) { FILE *file = fopen("%s", "w"); if (file) fclose(file); }
"""


def reference_of(case: ModelCase) -> Reference:
    rows = reference_rows(case.thresholds, FEATURES, seed=7)
    return Reference(rows, case.raw(rows), case.score(rows))


def check(ours: LignumRuntime, case: ModelCase, rows: Matrix) -> None:
    margins, scores = ours.margin(rows), ours.score(rows)
    assert same_bits(margins, case.raw(rows)).all()
    assert same_bits(scores, case.score(rows)).all()
    assert margins.flags.c_contiguous
    assert scores.flags.c_contiguous


@pytest.mark.parametrize("name", [*names_of({"lightgbm", "xgboost"}, REFUSED), "catboost binary"])
def test_every_bit_is_the_library_s(name: str, tmp_path: Path) -> None:
    case = MAKERS[name](tmp_path)
    ours = LignumRuntime(name.partition(" ")[0], case.model_file)
    assert (ours.n_features, ours.n_outputs) == (FEATURES, case.runtime.n_outputs)
    assert certify(ours, reference_of(case)).bit_equal
    for _, rows in odd_rows(case.thresholds):
        check(ours, case, rows)
        check(ours, case, rows[:1])
    assert ours.margin(rows[:0]).shape == ours.score(rows[:0]).shape == case.runtime.score(rows[:0]).shape

    @settings(max_examples=5, suppress_health_check=list(HealthCheck))
    @given(rows=any_rows(case.thresholds))
    def any_row(rows: Matrix) -> None:
        check(ours, case, rows)

    any_row()
    ours.close()
    case.runtime.close()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_it_cannot_do_is_refused(name: str, tmp_path: Path) -> None:
    case = MAKERS[name](tmp_path)
    reference = reference_of(case)
    candidates = find_candidates(name.partition(" ")[0], "auto", case.model_file, "lignum")
    choice = choose(case.runtime, certify(case.runtime, reference), candidates, reference)
    assert choice.runtime is case.runtime
    assert [(item.runtime, item.role) for item in choice.trials] == [
        (case.runtime.runtime_id, "own"),
        ("lignum", "refused"),
    ]
    assert REFUSED[name] in str(choice.trials[1].reason)
    case.runtime.close()


def count_differences(algorithm: str, seeds: range, folder: Path, rows: int) -> tuple[int, int]:
    """Return the number of random models that lignum scores, and of hard rows with other bits; others are refused."""
    path, scored, wrong = folder / "model.json", 0, 0
    for seed in seeds:
        sample = random_model(algorithm, seed)
        path.write_bytes(sample.model)
        try:
            ours = LignumRuntime(algorithm, path)
        except PackageError as refusal:
            if not any(reason in refusal.sentence() for reason in REASONS):
                raise
            continue
        hard = hard_rows(read_trees(algorithm, sample.model, "sample"), sample.categorical, seed, rows)
        expected = library_margins(sample, hard)
        found = ours.margin(hard).reshape(expected.shape)
        wrong += int((~same_bits(found, expected).reshape(rows, -1).all(axis=1)).sum())
        scored += 1
        ours.close()
    return scored, wrong


@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost", "catboost"])
def test_random_models_have_the_library_s_bits_on_hard_rows(algorithm: str, tmp_path: Path) -> None:
    scored, wrong = count_differences(algorithm, range(12), tmp_path, 500)
    assert (scored > 2, wrong) == (True, 0)


@pytest.mark.soak
@pytest.mark.parametrize("algorithm", ["lightgbm", "xgboost", "catboost"])
def test_many_random_models_have_the_library_s_bits_on_hard_rows(algorithm: str, tmp_path: Path) -> None:
    scored, wrong = count_differences(algorithm, range(300), tmp_path, 2_000)
    sys.stdout.write(f"{algorithm}: {scored} of 300 random models scored, {scored * 2_000:,} rows: {wrong} differ\n")
    assert wrong == 0


def infinite_threshold_case(folder: Path) -> ModelCase:
    """Return a model that splits numbers from missing values: LightGBM writes such a threshold as ``inf``."""
    case = lightgbm_case(folder, {"objective": "multiclass", "num_class": 4, "min_data_per_group": 5}, categorical=True)
    assert "inf" in case.model_file.read_text().partition("\nthreshold=")[2]
    return case


def test_an_infinite_threshold_sends_plus_infinity_astray_unless_it_is_guarded(tmp_path: Path) -> None:
    case = infinite_threshold_case(tmp_path)
    ours = LignumRuntime("lightgbm", case.model_file)
    rows = dict(odd_rows(case.thresholds))["special"]
    expected = case.raw(rows)
    bare = np.asarray(ours._model.predict(rows, raw_score=True, n_jobs=1))
    wrong = ~same_bits(bare, expected).all(axis=1)
    assert wrong.any()
    assert np.isposinf(rows[wrong]).any(axis=1).all()
    before = rows.tobytes()
    assert same_bits(ours.margin(rows), expected).all()
    assert rows.tobytes() == before
    ours.close()
    case.runtime.close()


def test_many_threads_many_sizes_and_none_of_them_holds_the_gil(lightgbm_binary: ModelCase) -> None:
    rows = np.random.default_rng(3).normal(size=(60_000, FEATURES))
    margins = lightgbm_binary.raw(rows)
    ours = LignumRuntime("lightgbm", lightgbm_binary.model_file)
    counts = [1 + 37 * index % 700 for index in range(60)]
    with ThreadPoolExecutor(4) as pool:
        results = pool.map(lambda count: same_bits(ours.margin(rows[:count]), margins[:count]).all(), counts)
        assert all(results)
    turns, stop = 0, threading.Event()

    def count_turns() -> None:
        nonlocal turns
        while not stop.is_set():
            turns += 1
            time.sleep(0)

    other = threading.Thread(target=count_turns)
    other.start()
    turns_before = turns
    assert same_bits(ours.margin(rows), margins).all()
    turns_meanwhile = turns - turns_before
    stop.set()
    other.join()
    # A call that held the GIL would let the other thread run only before and after it.
    assert turns_meanwhile > 20
    ours.close()
    with pytest.raises(PackageError, match="is closed"):
        ours.score(rows[:1])


def test_a_link_that_lignum_lacks_is_the_library_s(tmp_path: Path) -> None:
    """Version 0.3 of lignum forgets ``reg_sqrt``: its own scores of such a model are its margins."""
    case = lightgbm_case(tmp_path, {"objective": "regression", "reg_sqrt": True})
    ours = LignumRuntime("lightgbm", case.model_file)
    rows = np.random.default_rng(5).normal(size=(300, FEATURES))
    check(ours, case, rows)
    assert not same_bits(np.asarray(ours._model.predict(rows)), case.score(rows)).any()


@pytest.mark.parametrize("content", [b"", b"no model", b"tree\nversion=v4\n"])
def test_a_file_that_is_no_model_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_bytes(content)
    with pytest.raises(PackageError, match=r"model\.txt"):
        LignumRuntime("lightgbm", path)


def test_contributions_and_foreign_matrices_are_refused(lightgbm_binary: ModelCase) -> None:
    ours = LignumRuntime("lightgbm", lightgbm_binary.model_file)
    rows = np.zeros((4, FEATURES))
    with pytest.raises(RequestError, match="has no contributions on lignum"):
        ours.contributions(rows)
    for wrong in (np.asfortranarray(rows), rows.astype(np.float32), rows[:, :-1].copy()):
        with pytest.raises(RequestError):
            ours.score(wrong)  # type: ignore[arg-type]  # float32 is the point


def test_without_lignum_the_extra_is_named(lightgbm_binary: ModelCase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "find_spec", lambda _: None)
    (only,) = find_candidates("lightgbm", "auto", lightgbm_binary.model_file, "lignum")
    assert "pip install 'skewless[lignum]'" in str(only.problem)


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    tempfile.tempdir = None


@NEEDS_COMPILER
def test_compiled_trees_have_the_bits_and_leave_no_file(temporary_folder: Path, tmp_path: Path) -> None:
    case = small_case(tmp_path)
    ours = LignumRuntime("lightgbm", case.model_file, compiled=True)
    assert ours._model.uses_compiled
    assert ours.runtime_id.startswith("lignum-compiled-")
    assert list(temporary_folder.iterdir()) == []
    assert certify(ours, reference_of(case)).bit_equal
    for _, rows in odd_rows(case.thresholds):
        check(ours, case, rows)


def small_case(folder: Path) -> ModelCase:
    """Return a model that is compiled in a fraction of a second."""
    case = lightgbm_case(folder, {"objective": "binary", "num_leaves": 4})
    booster = lgb.Booster(model_file=str(case.model_file))
    case.model_file.write_text(booster.model_to_string(num_iteration=5))
    booster = lgb.Booster(model_file=str(case.model_file))
    return ModelCase(
        runtime=case.runtime,
        raw=lambda rows: np.asarray(booster.predict(rows, raw_score=True)),
        score=lambda rows: np.asarray(booster.predict(rows)),
        contributions=case.contributions,
        thresholds=case.thresholds,
        model_file=case.model_file,
    )


@NEEDS_COMPILER
def test_a_library_that_somebody_planted_is_run_by_lignum_alone_and_not_by_us(
    temporary_folder: Path, tmp_path: Path
) -> None:
    """The default folder of lignum in the temporary folder has a predictable name, and so has the library in it."""
    case, mark = small_case(tmp_path), tmp_path / "planted code ran"
    lignum.load(str(case.model_file)).compile()
    (library,) = (temporary_folder / "lignum_compiled").glob("*.so")
    source = tmp_path / "planted.c"
    source.write_text(_PLANTED % mark)
    library.unlink()
    subprocess.run([shutil.which("cc") or "cc", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    load = "import sys, lignum; lignum.load(sys.argv[1]).compile()"
    subprocess.run([sys.executable, "-c", load, str(case.model_file)], capture_output=True, check=False)
    assert mark.exists(), "lignum no longer runs a planted library: the guard can go"
    mark.unlink()
    ours = LignumRuntime("lightgbm", case.model_file, compiled=True)
    assert ours._model.uses_compiled
    assert not mark.exists()


def test_the_folder_is_private_and_gone_afterwards(temporary_folder: Path) -> None:
    with private_folder() as folder:
        assert folder.parent == temporary_folder.resolve()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == os.geteuid()
        (folder / "file").touch()
    assert not folder.exists()


def test_a_temporary_folder_whose_folders_others_may_replace_is_refused(temporary_folder: Path) -> None:
    temporary_folder.chmod(0o777)  # without the sticky bit
    with pytest.raises(PackageError, match="lets other users replace its folders"), private_folder():
        pass


def test_a_folder_that_is_not_private_is_refused(temporary_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    with pytest.raises(PackageError, match="is not private"), private_folder():
        pass
    assert list(temporary_folder.iterdir()) == []


def test_without_a_compiler_the_trial_names_it(
    lightgbm_binary: ModelCase, temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(temporary_folder))
    with pytest.raises(PackageError, match="install a C compiler"):
        LignumRuntime("lightgbm", lightgbm_binary.model_file, compiled=True)


def test_the_faster_of_two_is_chosen(lightgbm_binary: ModelCase) -> None:
    reference = reference_of(lightgbm_binary)
    own = lightgbm_binary.runtime
    candidates = find_candidates("lightgbm", "cpu", lightgbm_binary.model_file, "lignum")
    choice = choose(own, certify(own, reference), candidates, reference)
    assert [item.certificate and item.certificate.bit_equal for item in choice.trials] == [True, True]
    first, second = [item.seconds for item in choice.trials]
    assert first
    assert second
    assert isinstance(choice.runtime, FallbackRuntime) is (second * 1.1 < first)
    rows = reference.rows
    assert same_bits(choice.runtime.score(rows), lightgbm_binary.score(rows)).all()
