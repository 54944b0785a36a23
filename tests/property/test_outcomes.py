"""The outcomes that count: against a plain search, for any order, segments and merges."""

from __future__ import annotations

import tempfile
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.errors import StoreError
from skewless.contract.feedback import Outcome
from skewless.infra.log.compaction import compact
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.outcomes.log import (
    OutcomeCounts,
    OutcomeLog,
    OutcomeWriter,
    compact_outcomes,
    open_outcome_log,
    outcome_spool,
)
from tests.property.fewer import FEWER

NEVER = 10**9
SUBJECTS = (
    {"prediction_id": "a"},
    {"prediction_id": "b"},
    {"model": "m", "keys": (("card", "7"),), "event_time": 3},
    {"model": "m", "keys": (("card", None),), "event_time": 3},
    {"model": "m", "keys": (("card", "7"),), "event_time": 4},
)
VALUES = st.sampled_from((None, 0.0, 1.0))
OUTCOMES = st.builds(
    lambda subject, label, value, known: Outcome(**subject, label=label, value=value, known_at=known),
    st.sampled_from(SUBJECTS),
    VALUES,
    VALUES,
    st.integers(0, 4),
)
# What came at once, and how long after what came before it.
BATCHES = st.lists(st.tuples(st.integers(0, 2), st.lists(OUTCOMES, min_size=1, max_size=5)), max_size=6)
Said = tuple[int, int, int, Outcome]
Batches = list[tuple[int, list[Outcome]]]


def said(batches: Batches) -> list[Said]:
    """Return when each row was received, its file and its place in it, in the order in which they came."""
    now, rows = 0, []
    for file, (later, outcomes) in enumerate(batches):
        now += later
        rows += [(now, file, place, outcome) for place, outcome in enumerate(outcomes)]
    return rows


def write(state: ProjectState, batches: Batches) -> None:
    """Write batches; the log's next reader ships them."""
    writer, now = OutcomeWriter(outcome_spool(state), lambda: None), 0
    for later, outcomes in batches:
        now += later
        writer.append(outcomes, received_at=now, source="test")


def subject(outcome: Outcome) -> tuple[Any, ...]:
    return (outcome.prediction_id or "", outcome.model or "", repr(outcome.keys), outcome.event_time or 0)


def by_subject(rows: list[Said]) -> list[list[Said]]:
    ordered = sorted(rows, key=lambda row: (subject(row[3]), row[3].known_at, *row[:3]))
    return [list(group) for _, group in groupby(ordered, key=lambda row: subject(row[3]))]


def expected_counts(rows: list[Said]) -> OutcomeCounts:
    found = dict.fromkeys(OutcomeCounts.__dataclass_fields__, 0) | {"rows": len(rows)}
    for group in by_subject(rows):
        found["subjects"] += 1
        for (*_, before), (*_, after) in pairwise(group):
            if (after.label, after.value) == (before.label, before.value):
                found["duplicates"] += 1
            elif after.kind == "retraction":
                found["retractions"] += 1
            else:
                found["contradictions" if after.known_at == before.known_at else "corrections"] += 1
        arrived = sorted(group, key=lambda row: row[:3])
        found["late"] += sum(
            row[3].known_at < max((other[3].known_at for other in arrived[:i]), default=-1)
            for i, row in enumerate(arrived)
        )
    return OutcomeCounts(**found)


def standing(log: OutcomeLog, known_by: int) -> list[tuple[Any, ...]]:
    rows = log.latest(known_by).to_pylist()
    return sorted(
        (row["label"] is None, row["label"] or 0, row["value"] or 0, row["known_at"], row["received_at"])
        for row in rows
    )


@FEWER
@given(BATCHES, st.integers(-1, 5))
def test_what_was_known_last_holds(connection: duckdb.DuckDBPyConnection, batches: Batches, known_by: int) -> None:
    rows = [row for row in said(batches) if row[3].known_at <= known_by]
    best = [group[-1] for group in by_subject(rows)]
    with tempfile.TemporaryDirectory() as folder:
        state = ProjectState(Path(folder))
        write(state, batches)
        log = OutcomeLog(state, connection)
        assert standing(log, known_by) == sorted(
            (found.label is None, found.label or 0, found.value or 0, found.known_at, now) for now, _, _, found in best
        )
        assert log.counts(known_by) == expected_counts(rows)
        state.database.close()


@FEWER
@given(BATCHES, BATCHES)
def test_a_merge_changes_nothing(connection: duckdb.DuckDBPyConnection, batches: Batches, later: Batches) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = ProjectState(Path(folder))
        for each in (batches, later):
            write(state, each)
            before = OutcomeLog(state, connection)
            outcomes, counts = before.latest(NEVER), before.counts(NEVER)
            compact_outcomes(state)
            after = OutcomeLog(state, connection)
            assert (after.latest(NEVER), after.counts(NEVER)) == (outcomes, counts)
            assert (before.latest(NEVER), before.counts(NEVER)) == (outcomes, counts)
            assert compact_outcomes(state) == 0
        assert sum(segment.rows for segment in open_outcome_log(state).segments()) == len(said(batches + later))
        state.database.close()


def test_segments_are_merged_up_to_a_size(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    state = ProjectState(tmp_path)
    for i in range(5):
        write(state, [(1, [Outcome(prediction_id=str(i), label=1.0, known_at=i)] * 2)])
        log = open_outcome_log(state)  # ships each batch alone
    assert compact(log, keep=0, target_rows=4, group=lambda _: "outcomes").merged == 4
    assert [segment.rows for segment in log.segments()] == [4, 4, 2]
    assert OutcomeLog(state, connection).counts(NEVER).rows == 10


def test_a_merged_segment_grows_with_the_nights(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    state = ProjectState(tmp_path)
    outcomes = [Outcome(prediction_id="a", label=1.0, known_at=1)]
    for night in range(1, 15):
        OutcomeWriter(outcome_spool(state)).append(outcomes, received_at=night, source="test")
        compact_outcomes(state)
    assert len(open_outcome_log(state).segments()) <= 3
    assert OutcomeLog(state, connection).counts(NEVER).rows == 14


def test_an_outcome_that_cannot_be_shipped_is_in_the_log_later(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    state = ProjectState(tmp_path)

    def ship() -> None:
        raise StoreError("database", "is down", fix="start it")

    with pytest.raises(StoreError, match="is down"):
        OutcomeWriter(outcome_spool(state), ship).append(
            [Outcome(prediction_id="a", label=1.0, known_at=1)], received_at=1, source="test"
        )
    assert OutcomeLog(state, connection).counts(NEVER).rows == 1
