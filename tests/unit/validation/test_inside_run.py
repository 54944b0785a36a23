"""SEMANTICS 2.7: a read is inside a run if one was in flight at any time of the read."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from skewless.infra.log.runs import RunTimes
from skewless.validation.replay import is_inside_run

_TIME = st.integers(0, 12)
_RUNS = st.lists(st.tuples(_TIME, st.none() | _TIME), max_size=6)
_READS = st.lists(st.tuples(_TIME, st.integers(0, 3)), max_size=8)


@given(runs=_RUNS, reads=_READS)
def test_2_7_a_crashed_run_is_in_flight_until_the_next_finished_run_ends(
    runs: list[tuple[int, int | None]], reads: list[tuple[int, int]]
) -> None:
    rows = [(n, start, 0, end is not None, end or 0) for n, (start, end) in enumerate(runs, 1)]
    times = RunTimes.build(np.array(rows, np.int64).reshape(-1, 5).T)
    begin = np.array([start for start, _ in reads], np.int64)
    end = begin + np.array([length for _, length in reads], np.int64)
    expected = []
    for first, last in zip(begin.tolist(), end.tolist(), strict=True):
        later = [[one for _, one in runs[n:] if one is not None] for n in range(len(runs))]
        spans = [(start, ends[0] if ends else 10**9) for (start, _), ends in zip(runs, later, strict=True)]
        expected.append(any(start <= last and first <= stop for start, stop in spans))
    assert is_inside_run(begin, end, times).tolist() == expected
