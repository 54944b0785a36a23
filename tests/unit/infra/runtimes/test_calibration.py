"""What runtimes take is measured at five sizes; from it follows which one a batch goes to."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.infra.runtimes.port import Matrix, Scores
from skewless.infra.runtimes.shared import SIZES, Calibration, Step, calibrate, choose_steps
from tests.unit.infra.runtimes.standing_in import StandIn, calibration
from tests.worlds.clock import SecondsClock

ROWS = np.arange(6, dtype=np.float64).reshape(3, 2)
SECONDS = st.floats(1e-6, 10.0)
CALIBRATIONS = st.lists(SECONDS, min_size=5, max_size=5).map(lambda seconds: calibration(*seconds))


def measured(seconds: Callable[[int], float]) -> tuple[Calibration, StandIn]:
    clock = SecondsClock(1_000.0)
    runtime = StandIn("r", seconds=seconds, clock=clock)
    return calibrate(runtime, ROWS, clock), runtime


def test_every_size_is_measured_where_that_is_quick() -> None:
    found, runtime = measured(lambda rows: 1e-4 + 1e-6 * rows)
    assert found.measured == 5
    assert found.seconds == pytest.approx([1e-4 + 1e-6 * size for size in SIZES])
    # Once to warm up, five times on the clock.
    assert runtime.asked == [size for size in SIZES for _ in range(6)]


def test_a_size_is_not_tried_again_once_a_tenth_of_a_second_is_over() -> None:
    _, runtime = measured(lambda rows: 0.06 if rows == 1 else 1e-3)
    assert runtime.asked.count(1) == 1 + 2


def test_a_call_that_would_take_too_long_is_not_made_and_follows_from_the_last() -> None:
    found, runtime = measured(lambda rows: 1e-3 * rows)
    assert max(runtime.asked) == 64
    assert found.measured == 3
    assert found.seconds == pytest.approx([1e-3, 8e-3, 0.064, 0.512, 4.096])


def test_a_call_in_which_the_machine_did_something_else_does_not_count() -> None:
    taken = iter([1e-3, 2e-3, 0.09, 2e-3, 3e-3, 3e-3, *[1e-3] * 100])
    found, _ = measured(lambda _: next(taken))
    assert found.seconds[0] == pytest.approx(2e-3)


def test_a_machine_that_stands_still_between_two_looks_at_the_clock_is_measured_all_the_same() -> None:
    readings = iter(range(1_000))
    found = calibrate(StandIn("r"), ROWS, lambda: float(next(readings)))
    assert found.measured == 1
    assert found.seconds == pytest.approx([float(size) for size in SIZES])


def test_the_matrix_is_what_a_runtime_takes() -> None:
    seen: list[tuple[tuple[int, ...], bool]] = []

    class Looking(StandIn):
        def score(self, matrix: Matrix) -> Scores:
            seen.append((matrix.shape, matrix.flags.c_contiguous))
            assert np.array_equal(matrix[: min(3, len(matrix))], ROWS[: len(matrix)])
            return super().score(matrix)

    calibrate(Looking("r"), ROWS, lambda: 0.0)
    assert set(seen) == {((size, 2), True) for size in SIZES}


def test_between_sizes_on_a_line_and_beyond_in_proportion() -> None:
    found = calibration(1.0, 8.0, 16.0, 32.0, 40.0)
    assert [found.expected_s(rows) for rows in (0, 1, 8, 36, 4_096, 8_192, 40_960)] == [
        1.0, 1.0, 8.0, 12.0, 40.0, 80.0, 400.0,
    ]  # fmt: skip


def test_a_gain_of_a_tenth_is_needed() -> None:
    assert calibration(1.0, 1.0, 1.0, 1.0, 1.0).is_faster(calibration(*[1.2] * 5), 8)
    assert not calibration(1.0, 1.0, 1.0, 1.0, 1.0).is_faster(calibration(*[1.09] * 5), 8)
    assert choose_steps([calibration(*[1.09] * 5), calibration(*[1.0] * 5)]) == (Step(rows=1, at=0),)
    assert choose_steps([calibration(*[1.11] * 5), calibration(*[1.0] * 5)]) == (Step(rows=1, at=1),)


def test_the_step_is_where_the_lines_cross() -> None:
    own = calibration(*(1e-5 * size for size in SIZES))
    gpu = calibration(*[2e-4] * 5)
    first, second = choose_steps([own, gpu])
    assert first == Step(rows=1, at=0)
    assert second.at == 1
    assert second.rows in {20, 21}


def test_a_second_that_is_hardly_faster_at_a_size_begins_beyond_it() -> None:
    own, gpu = calibration(1.0, 1.0, 1.05, 8.0, 64.0), calibration(1.0, 1.0, 1.0, 2.0, 3.0)
    assert choose_steps([own, gpu]) == (Step(rows=1, at=0), Step(rows=65, at=1))


def test_one_that_falls_back_is_used_only_in_between() -> None:
    own, other = calibration(1.0, 5.0, 9.0, 10.0, 11.0), calibration(2.0, 2.0, 2.0, 12.0, 90.0)
    found = choose_steps([own, other])
    assert [step.at for step in found] == [0, 1, 0]
    assert 1 < found[1].rows <= 8
    assert 64 < found[2].rows <= 512


@given(st.lists(CALIBRATIONS, min_size=1, max_size=4))
def test_steps_of_any_calibrations(calibrations: list[Calibration]) -> None:
    found = choose_steps(calibrations)
    rows = [step.rows for step in found]
    assert rows[0] == 1
    assert rows == sorted(set(rows))
    assert rows[-1] <= SIZES[-1]
    assert all(before.at != after.at for before, after in pairwise(found))
    for at, size in enumerate(SIZES):
        used = [step.at for step in found if step.rows <= size][-1]
        costs = [each.seconds[at] for each in calibrations]
        if used == 0:
            assert costs[0] <= 1.1 * min(costs) * (1 + 1e-12)
        else:
            assert costs[used] == min(costs[1:])
            assert costs[used] * 1.1 < costs[0] * (1 + 1e-12)


@given(CALIBRATIONS, CALIBRATIONS)
def test_at_a_step_the_new_one_is_as_fast_on_the_line(own: Calibration, other: Calibration) -> None:
    pair = (own, other)
    found = choose_steps(pair)
    for before, after in pairwise(found):
        gone, new = pair[before.at], pair[after.at]
        # The library's own comes back as soon as nothing is a tenth faster.
        assert new.expected_s(after.rows) <= gone.expected_s(after.rows) * (1.1 if after.at == 0 else 1.0) * (1 + 1e-9)
