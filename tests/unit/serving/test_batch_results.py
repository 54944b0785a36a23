"""The columns that batch prediction adds to the rows of a file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from skewless.serving.batch import add_results, result_names
from tests.unit.serving.standing_in import answer, model

_ROWS = pa.table({"card_id": [7, 8]})


def test_a_model_of_several_classes_has_a_score_for_each() -> None:
    of = model(n_outputs=3, spec={"task": "multiclass", "classes": ("cat", "dog", "owl")})
    scores = np.array([[0.25, 0.75, 0.0], [0.5, 0.125, 0.375]])
    table = add_results(_ROWS, answer(of, scores))
    assert tuple(table.column_names) == ("card_id", *result_names(of, leaves=False))
    assert table.select(["score", "score_cat", "score_dog", "score_owl"]).to_pylist() == [
        {"score": 0.75, "score_cat": 0.25, "score_dog": 0.75, "score_owl": 0.0},
        {"score": 0.5, "score_cat": 0.5, "score_dog": 0.125, "score_owl": 0.375},
    ]


def test_a_model_of_one_output_has_one_score() -> None:
    table = add_results(_ROWS, answer(model(), np.array([0.25, -0.0])))
    assert tuple(table.column_names) == ("card_id", *result_names(model(), leaves=False))
    assert table["score"].to_pylist() == [0.25, -0.0]
