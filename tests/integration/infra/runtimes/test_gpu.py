"""Models on a real GPU (`make gpu`): the library's bits through nvForest, a rounding through XGBoost's own code."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from infra.runtimes.calibration import SIZES, Calibration, Step
from infra.runtimes.candidates import Place, candidates
from infra.runtimes.certification import certify, same_bits
from infra.runtimes.child import ChildRuntime
from infra.runtimes.choice import choose
from infra.runtimes.cuda import driver
from infra.runtimes.nvforest import NvForestRuntime
from infra.runtimes.port import Runtime
from infra.runtimes.reference import Reference, reference_rows
from infra.runtimes.shared import Member, SharedRuntime
from infra.runtimes.xgboost_cuda import XGBoostCudaRuntime
from tests.integration.infra.runtimes.children import wait_for
from tests.integration.infra.runtimes.conftest import MAKERS, Case
from tests.integration.infra.runtimes.rows import FEATURES, odd_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(driver().problem is not None, reason=f"no GPU: {driver().problem}"),
]

EXACT = sorted(MAKERS.keys() - {"lightgbm zero as missing", "xgboost dart", "xgboost ubj"})
XGBOOST = [name for name in EXACT if name.startswith("xgboost")]
TOLERANCE = 1e-4
STEPS = (Step(rows=1, at=1),)
MANY = np.random.default_rng(9).normal(size=(200_000, FEATURES))


@contextmanager
def closing(runtime: Runtime) -> Iterator[Runtime]:
    try:
        yield runtime
    finally:
        runtime.close()


def reference_of(case: Case) -> Reference:
    rows = reference_rows(case.thresholds, FEATURES, seed=7)
    return Reference(rows, case.raw(rows), case.score(rows))


def check(ours: Runtime, case: Case) -> None:
    """Compare every bit on all kinds of rows, one row and many."""
    assert certify(ours, reference_of(case)).bit_equal
    for _, rows in [*odd_rows(case.thresholds), ("many", MANY), ("one", MANY[:1])]:
        assert same_bits(ours.margin(rows), case.raw(rows)).all()
        assert same_bits(ours.score(rows), case.score(rows)).all()
    assert ours.score(MANY[:0]).shape == case.runtime.score(MANY[:0]).shape


@pytest.mark.parametrize("name", EXACT)
def test_nvforest_in_this_process_has_the_library_s_bits(name: str, tmp_path: Path) -> None:
    case = MAKERS[name](tmp_path)
    with closing(NvForestRuntime(name.partition(" ")[0], case.model_file, "gpu")) as runtime:
        check(runtime, case)


@pytest.mark.parametrize("name", ["lightgbm categorical", "xgboost multiclass"])
def test_nvforest_in_a_child_has_the_library_s_bits(name: str, tmp_path: Path) -> None:
    case = MAKERS[name](tmp_path)
    with closing(ChildRuntime(name.partition(" ")[0], case.model_file, "gpu")) as runtime:
        check(runtime, case)


@pytest.mark.parametrize("child", [False, True])
@pytest.mark.parametrize("name", XGBOOST)
def test_xgboost_s_own_code_is_within_roundings(name: str, child: bool, tmp_path: Path) -> None:  # noqa: FBT001
    case = MAKERS[name](tmp_path)
    opened: Runtime = (
        ChildRuntime("xgboost", case.model_file, "gpu", kind="xgboost-cuda")
        if child
        else XGBoostCudaRuntime.from_file(case.model_file)
    )
    with closing(opened) as runtime:
        assert certify(runtime, reference_of(case), tolerance=TOLERANCE).largest_difference <= TOLERANCE
        assert np.allclose(runtime.margin(MANY), case.raw(MANY), rtol=0.0, atol=TOLERANCE)
        assert np.allclose(runtime.score(MANY), case.score(MANY), rtol=0.0, atol=TOLERANCE)
        assert runtime.score(MANY[:0]).shape == case.runtime.score(MANY[:0]).shape


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("name", ["lightgbm binary", "xgboost binary"])
def test_it_is_certified_measured_and_shares_or_is_slower(name: str, alone: bool, tmp_path: Path) -> None:  # noqa: FBT001
    case = MAKERS[name](tmp_path)
    reference = reference_of(case)
    tried = candidates(name.partition(" ")[0], "cuda", case.model_file, Place(alone=alone))
    choice = choose(case.runtime, certify(case.runtime, reference), tried, reference, large=alone)
    (role,) = [item.role for item in choice.tried if item.runtime.startswith("nvforest-gpu")]
    assert role in {"shared", "slower"}
    with closing(choice.runtime) as runtime:
        for n in (1, 8, 64, 512, 4_096, len(MANY)):
            assert same_bits(runtime.score(MANY[:n]), case.score(MANY[:n])).all()


def test_a_child_that_is_killed_with_its_device_costs_no_answer(tmp_path: Path) -> None:
    case = MAKERS["lightgbm binary"](tmp_path)
    child = ChildRuntime("lightgbm", case.model_file, "gpu")
    zeros = reference_of(case).rows
    own = Member(case.runtime, _calibration(1.0))
    shared = SharedRuntime(own, [Member(child, _calibration(0.5))], STEPS)
    assert same_bits(shared.score(zeros), case.score(zeros)).all()
    process = child.process_id
    assert process is not None
    os.kill(process, signal.SIGKILL)
    assert same_bits(shared.score(MANY), case.score(MANY)).all()
    assert (shared.members[1].batches, shared.members[1].failures) == (1, 1)
    wait_for(process)
    shared.close()


def test_too_little_device_memory_is_a_failure_that_the_library_answers(tmp_path: Path) -> None:
    import cupy  # noqa: PLC0415 - only where the extra is installed

    case = MAKERS["lightgbm binary"](tmp_path)
    runtime = NvForestRuntime("lightgbm", case.model_file, "gpu")
    shared = SharedRuntime(Member(case.runtime, _calibration(1.0)), [Member(runtime, _calibration(0.5))], STEPS)
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=1 << 20)
    try:
        assert same_bits(shared.score(MANY), case.score(MANY)).all()
    finally:
        pool.set_limit(size=0)
    assert (shared.members[1].batches, shared.members[1].failures) == (0, 1)
    assert same_bits(runtime.score(MANY), case.score(MANY)).all()
    shared.close()


def _calibration(seconds: float) -> Calibration:
    return Calibration(seconds=(seconds,) * len(SIZES), measured=len(SIZES))
