"""The check of each run of `make test`: a small model is trained, certified, and scored with the library's bits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from skewless.contract.errors import DefinitionError
from skewless.infra.models.runtimes.candidates import open_runtime
from skewless.infra.models.runtimes.certification import Reference, certify, reference_rows, same_bits
from skewless.training.train import find_trainer
from tests.integration.training.trainers.test_trainers import rows_of, spec_of


def test_a_trained_model_is_certified_and_scored_with_the_bits_of_catboost(tmp_path: Path) -> None:
    rows = rows_of("binary", size=200)
    trained = find_trainer("catboost").train(rows, spec_of("catboost"))
    path = tmp_path / trained.file_name
    path.write_bytes(trained.model)
    hard = reference_rows(trained.thresholds, rows.matrix.shape[1], seed=7)
    runtime = open_runtime("catboost", path)
    try:
        certificate = certify(runtime, Reference(hard, trained.raw_margin(hard), trained.score(hard)))
        assert certificate.bit_equal
        assert len(np.unique(runtime.score(rows.matrix))) > 1
        assert same_bits(runtime.score(rows.matrix), trained.score(rows.matrix)).all()
    finally:
        runtime.close()


def test_without_catboost_a_training_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skewless_catboost.trainer", None)
    with pytest.raises(DefinitionError, match=r"lacks a library to train.*pip install 'skewless\[catboost\]'"):
        find_trainer("catboost")
