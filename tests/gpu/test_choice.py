"""What is chosen on a machine with a GPU, and who answers when it fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from skewless.infra.runtimes.candidates import ScoringTarget, find_candidates
from skewless.infra.runtimes.certification import certify, same_bits
from skewless.infra.runtimes.child import ChildRuntime
from skewless.infra.runtimes.choice import RuntimeChoice, choose
from skewless.infra.runtimes.shared import SIZES, Calibration, RuntimeMember, SharedRuntime, Step
from tests.gpu.conftest import algorithm_of, little_memory, reference_of
from tests.integration.infra.runtimes.conftest import FEATURES, ModelCase

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]
ANY_TIME = Calibration(seconds=(1.0,) * len(SIZES), measured=len(SIZES))
MANY = np.random.default_rng(4).normal(size=(400_000, FEATURES))


@contextmanager
def chosen(kind: str, case: ModelCase, *, alone: bool) -> Iterator[RuntimeChoice]:
    """Choose for a model; what was opened besides its library is closed in the end."""
    algorithm, reference = algorithm_of(kind), reference_of(case)
    found = find_candidates(algorithm, "auto", case.model_file, ScoringTarget(alone=alone))
    assert [item.name for item in found] == ["nvforest-gpu", *(["xgboost-cuda"] if algorithm == "xgboost" else [])]
    choice = choose(case.runtime, certify(case.runtime, reference), found, reference)
    try:
        yield choice
    finally:
        if isinstance(choice.runtime, SharedRuntime):
            for member in choice.runtime.members[1:]:
                member.close()


@contextmanager
def on_the_gpu(case: ModelCase, *, alone: bool) -> Iterator[SharedRuntime]:
    """Yield a LightGBM model of which every batch goes to the GPU."""
    (candidate,) = find_candidates("lightgbm", "auto", case.model_file, ScoringTarget(alone=alone))
    assert candidate.open is not None
    second = RuntimeMember(candidate.open(), ANY_TIME)
    runtime = SharedRuntime(RuntimeMember(case.runtime, ANY_TIME), [second], [Step(rows=1, at=1)])
    try:
        assert same_bits(runtime.score(MANY), case.score(MANY)).all()
        assert (second.rows, second.failures) == (len(MANY), 0)
        yield runtime
    finally:
        second.close()


@pytest.mark.parametrize("kind", ["lightgbm binary", "xgboost binary"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_second_runtime_shares_where_it_was_measured_to_be_faster(
    kind: str,
    alone: bool,  # noqa: FBT001 - pytest gives it by name
    made: dict[str, ModelCase],
) -> None:
    case = made[kind]
    with chosen(kind, case, alone=alone) as choice:
        own, *others = [item for item in choice.trials if item.role != "refused"]
        (nvforest,) = [item for item in others if item.runtime.startswith("nvforest-gpu-")]
        assert nvforest.certificate is not None
        assert nvforest.certificate.bit_equal
        calibrations = [item.calibration for item in (own, *others)]
        assert all(calibrations)
        first, *rest = [item for item in calibrations if item is not None]
        faster = [size for size in SIZES if any(item.is_faster(first, size) for item in rest)]
        assert isinstance(choice.runtime, SharedRuntime) is bool(faster)
        assert own.from_rows == 1 or 1 in faster
        for size in SIZES:
            assert same_bits(choice.runtime.score(MANY[:size]), case.score(MANY[:size])).all()


def test_the_library_answers_while_the_device_has_no_memory(made: dict[str, ModelCase]) -> None:
    case = made["lightgbm binary"]
    with on_the_gpu(case, alone=True) as runtime:
        with little_memory():
            found = runtime.score(MANY)
        assert same_bits(found, case.score(MANY)).all()
        assert runtime.members[-1].failures == 1


def test_the_library_answers_for_a_child_that_was_killed(made: dict[str, ModelCase]) -> None:
    case = made["lightgbm binary"]
    with on_the_gpu(case, alone=False) as runtime:
        child = runtime.members[-1].runtime
        assert isinstance(child, ChildRuntime)
        assert child._process is not None
        os.kill(child._process.pid, signal.SIGKILL)
        assert same_bits(runtime.score(MANY), case.score(MANY)).all()
        assert runtime.members[-1].failures == 1
