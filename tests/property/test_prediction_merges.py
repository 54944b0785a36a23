"""After any writes, proofs and merges of the prediction log, each prediction is there once, and proven if it was."""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions import segments as module
from tests.property.fewer import FEWER
from tests.unit.infra.predictions.merges import (
    RowsByKey,
    delete_objects,
    merge,
    objects,
    prove,
    proven_ids,
    segments,
    stored,
    write,
)

MOST = 8
WRITE = st.tuples(st.just("write"), st.integers(0, 2), st.integers(1, 5))
MERGE = st.tuples(st.just("merge"), st.integers(0, 3))
STEPS = st.lists(st.one_of(WRITE, WRITE, MERGE, st.just(("prove",)), st.just(("delete",))), max_size=14)


@FEWER
@given(STEPS)
def test_each_prediction_is_there_once_and_proven_if_it_was(steps: list[tuple[object, ...]]) -> None:
    expected: RowsByKey = {}
    proven: set[str] = set()
    with tempfile.TemporaryDirectory() as folder, patch.object(module, "BATCH_ROWS", MOST):
        state = ProjectState(Path(folder))
        for seed, step in enumerate(steps):
            match step:
                case ("write", int(day), int(n)):
                    write(state, day=day, seed=seed, n=n)
                    expected |= {key: row for key, row in stored(state).items() if key[0].startswith(f"{seed}-")}
                case ("merge", int(day)):
                    merge(state, day=day)
                case ("delete",):
                    delete_objects(state)
                    assert objects(state) == {segment.stored.name for segment in segments(state)}
                case _:
                    prove(state)
                    proven = {name for name, _ in expected}
            assert stored(state) == expected
            assert proven_ids(state) == proven
            assert all(segment.rows <= MOST for segment in segments(state))
        state.database.close()
