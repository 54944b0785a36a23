"""What is scored on the event loop: what is expected to be quick."""

from __future__ import annotations

from typing import cast

import pytest

from skewless.infra.models.packages.served_model import RowTime, ServedModel
from skewless.serving.prediction.scoring import Scoring


class ScoredModel:
    """As much of a served model as scoring looks at."""

    def __init__(self, row_s: float) -> None:
        self.row_time = RowTime()
        self.row_time.seconds = row_s


@pytest.mark.parametrize(("threads", "most"), [(1, 10_000), (2, 1_000)])
def test_the_loop_scores_what_is_expected_to_be_quick(threads: int, most: int) -> None:
    """With several threads, as in batch prediction, it scores only small batches."""
    scoring = Scoring(threads=threads)
    model = cast("ServedModel", ScoredModel(1e-6))
    assert [scoring.is_quick(model, n) for n in (1, most - 1, most + 1)] == [True, True, False]
    assert scoring.is_quick(cast("ServedModel", ScoredModel(-1.0)), most + 1)
    scoring.close()
