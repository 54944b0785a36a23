"""The check of each run of `make test`: lignum is tried as the second runtime of a model, and certified."""

from __future__ import annotations

import pytest

from skewless.infra.models.runtimes.candidates import find_candidates
from skewless.infra.models.runtimes.certification import Reference, certify, reference_rows
from tests.worlds.model_cases import FEATURES, ModelCase


def test_lignum_is_certified_for_a_model_of_lightgbm(lightgbm_binary: ModelCase) -> None:
    pytest.importorskip("lignum", reason="pip install pylignum")
    rows = reference_rows(lightgbm_binary.thresholds, FEATURES, seed=7)
    (candidate,) = find_candidates("lightgbm", "cpu", lightgbm_binary.model_file, "lignum")
    assert candidate.problem is None
    runtime = candidate.open()
    try:
        assert runtime.runtime_id.startswith("lignum-")
        assert certify(runtime, Reference(rows, lightgbm_binary.raw(rows), lightgbm_binary.score(rows))).bit_equal
    finally:
        runtime.close()
