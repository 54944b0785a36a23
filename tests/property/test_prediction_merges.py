"""However the prediction log is written, proven and merged: each prediction stands once, proven iff it was proven."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from skewless.infra.predictions.files import add_proven, proven_files

from skewless.infra.predictions import compaction
from skewless.infra.storage.project_state import ProjectState
from tests.unit.infra.predictions.merges import GRACE_S, RowsByKey, ids_in, merge, names, rows_in, stored, write

MOST = 8
WRITE = st.tuples(st.just("write"), st.integers(0, 2), st.integers(1, 5), st.sampled_from((1, 3)))
MERGE = st.tuples(st.just("merge"), st.integers(0, 3), st.sampled_from((0.0, GRACE_S + 60)))
STEPS = st.lists(st.one_of(WRITE, WRITE, MERGE, st.just(("prove",))), max_size=14)


@settings(max_examples=(settings().max_examples + 1) // 2)
@given(STEPS)
def test_each_prediction_stands_once_and_is_proven_iff_it_was(steps: list[tuple[object, ...]]) -> None:
    expected: RowsByKey = {}
    proven: set[str] = set()
    with tempfile.TemporaryDirectory() as folder, patch.object(compaction, "BATCH_ROWS", MOST):
        state = Path(folder)
        for seed, step in enumerate(steps):
            match step:
                case ("write", int(day), int(n), int(form)):
                    path = write(state, day=day, seed=seed, n=n, form=form)
                    expected |= {key: row for key, row in stored(state).items() if key[0].startswith(f"{seed}-")}
                    assert path.name in names(state)
                case ("merge", int(day), float(later_s)):
                    merge(state, day=day, later_s=later_s)
                case _:
                    add_proven(ProjectState(state), names(state))
                    proven = {name for name, _ in expected}
            assert stored(state) == expected
            for name in names(state):
                assert (name in proven_files(ProjectState(state))) == (ids_in(state, name) <= proven), name
                assert rows_in(state, name) <= MOST
