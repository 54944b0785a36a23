"""What is chosen on a machine with a GPU, and who answers when it fails."""

from __future__ import annotations

import numpy as np
import pytest

from plugins.gpu.tests.conftest import algorithm_of, little_memory, reference_of
from skewless.infra.models.runtimes.candidates import find_candidates
from skewless.infra.models.runtimes.certification import certify, same_bits
from skewless.infra.models.runtimes.choice import choose
from skewless.infra.models.runtimes.fallback import FallbackRuntime
from tests.worlds.model_cases import FEATURES, ModelCase

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("device")]
MANY = np.random.default_rng(4).normal(size=(400_000, FEATURES))


@pytest.mark.parametrize("kind", ["lightgbm binary", "xgboost binary"])
@pytest.mark.parametrize("batch_rows", [64, 4_096])
def test_the_fastest_is_chosen(kind: str, batch_rows: int, made: dict[str, ModelCase]) -> None:
    case, algorithm = made[kind], algorithm_of(kind)
    reference = reference_of(case)
    candidates = find_candidates(algorithm, "auto", case.model_file, "gpu")
    assert [item.name for item in candidates] == ["nvforest-gpu", *(["xgboost-cuda"] if algorithm == "xgboost" else [])]
    choice = choose(case.runtime, certify(case.runtime, reference), candidates, reference, batch_rows=batch_rows)
    own, *others = [item for item in choice.trials if item.role != "refused"]
    (nvforest,) = [item for item in others if item.runtime.startswith("nvforest-gpu-")]
    assert nvforest.certificate is not None
    assert nvforest.certificate.bit_equal
    assert own.seconds is not None
    is_faster = any(item.seconds is not None and item.seconds * 1.1 < own.seconds for item in others)
    assert isinstance(choice.runtime, FallbackRuntime) is is_faster
    for size in (1, 64, 4_096):
        assert same_bits(choice.runtime.score(MANY[:size]), case.score(MANY[:size])).all()
    if isinstance(choice.runtime, FallbackRuntime):
        choice.runtime.chosen.close()


def test_the_library_answers_while_the_device_has_no_memory(made: dict[str, ModelCase]) -> None:
    case = made["lightgbm binary"]
    (candidate,) = find_candidates("lightgbm", "auto", case.model_file, "gpu")
    runtime = FallbackRuntime(candidate.open(), case.runtime)
    try:
        assert same_bits(runtime.score(MANY), case.score(MANY)).all()
        assert runtime.failures == 0
        with little_memory():
            found = runtime.score(MANY)
        assert same_bits(found, case.score(MANY)).all()
        assert runtime.failures == 1
    finally:
        runtime.chosen.close()
