"""What is scored on the event loop: what is quick, and works in this process."""

from __future__ import annotations

from typing import cast

import numpy as np

from skewless.infra.packages.served_model import RowTime, ServedModel
from skewless.infra.runtimes.shared import SIZES, Calibration, RuntimeMember, SharedRuntime, Step
from skewless.serving.prediction.scoring import Scoring
from tests.unit.serving.zeros import Zeros


def calibration(row_s: float) -> Calibration:
    return Calibration(seconds=tuple(row_s * size for size in SIZES), measured=5)


class ScoredModel:
    """As much of a served model as scoring looks at."""

    def __init__(self, runtime: SharedRuntime) -> None:
        self.runtime = runtime
        self.row_time = RowTime()


def model_of(runtime: SharedRuntime) -> ServedModel:
    return cast("ServedModel", ScoredModel(runtime))


def test_the_loop_waits_for_no_second_runtime_however_quick_it_was() -> None:
    second = Zeros("second-1")
    shared = SharedRuntime(
        RuntimeMember(Zeros("own-1"), calibration(1e-5)),
        [RuntimeMember(second, calibration(1e-8))],
        [Step(rows=1, at=0), Step(rows=64, at=1)],
    )
    model, scoring = model_of(shared), Scoring()
    assert [scoring.is_quick(model, n) for n in (1, 63, 64, 10_000)] == [True, True, False, False]
    second.fails = True
    scoring.score(model, np.zeros((64, 1)))
    # While the second rests, the library's own time decides.
    assert [scoring.is_quick(model, n) for n in (64, 999, 1_001)] == [True, True, False]
    scoring.close()


def test_a_second_runtime_that_cannot_hang_runs_on_the_loop_if_it_is_quick() -> None:
    second = RuntimeMember(Zeros("second-1"), calibration(1e-6), is_inline=True)
    shared = SharedRuntime(RuntimeMember(Zeros("own-1"), calibration(1e-5)), [second], [Step(rows=1, at=1)])
    scoring = Scoring()
    assert [scoring.is_quick(model_of(shared), n) for n in (1, 9_999, 10_001)] == [True, True, False]
    scoring.close()


def test_with_several_threads_the_loop_scores_only_small_batches() -> None:
    shared = SharedRuntime(RuntimeMember(Zeros("own-1"), calibration(1e-6)), [], [Step(rows=1, at=0)])
    scoring = Scoring(threads=2)
    assert [scoring.is_quick(model_of(shared), n) for n in (1, 999, 1_001)] == [True, True, False]
    scoring.close()
