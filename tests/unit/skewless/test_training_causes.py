"""Why a model is trained, in a sentence."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from skewless.operations.models.triggers import TrainingCause

SAME: Any = SimpleNamespace(fingerprint={"dataset": "abc"})
OTHER: Any = SimpleNamespace(fingerprint={"dataset": "def"})


@pytest.mark.parametrize(
    ("cause", "package", "text"),
    [
        (TrainingCause(model="m", version=None, reasons=("x",)), SAME, "m: trained because it has no champion"),
        (
            TrainingCause(model="m", version="000001", reasons=("view v", "seed")),
            SAME,
            "m: trained because its definitions differ from version 000001: view v, seed",
        ),
        (
            TrainingCause(model="m", version="000001", reasons=(), dataset="abc"),
            SAME,
            "m: trained again: version 000001 has the same definitions and the same training data",
        ),
        (
            TrainingCause(model="m", version="000001", reasons=(), dataset="abc"),
            OTHER,
            "m: trained again: version 000001 has the same definitions",
        ),
        (
            TrainingCause(model="m", version="000001", reasons=()),
            SAME,
            "m: trained again: version 000001 has the same definitions",
        ),
    ],
)
def test_a_training_says_what_it_changes(cause: TrainingCause, package: Any, text: str) -> None:  # noqa: ANN401
    assert cause.sentence(package) == text
