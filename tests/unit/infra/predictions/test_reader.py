"""The log is read back as it was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import StoreError
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.predictions.checksum import seal_rows
from skewless.infra.records.predictions.reader import LoggedPredictions, ModelVersion, PredictionLog
from skewless.infra.records.predictions.record import PredictionBatch
from skewless.infra.records.predictions.segments import CONTENT, SCHEMA, prediction_files, prediction_spool
from skewless.infra.records.predictions.writer import PredictionWriter
from tests.unit.infra.predictions.records import FIELDS, origin, record, vector_record

FIRST = ModelVersion(model="fraud", version="000001")


def write(state: ProjectState, *records: PredictionBatch) -> None:
    spool_all(state, *records)
    prediction_spool(state).ship()


def spool_all(state: ProjectState, *records: PredictionBatch) -> Path:
    """Return the file with all records."""
    spool = prediction_spool(state)
    log = PredictionWriter(spool, capacity=10_000, flush_seconds=60, on_drop=lambda n, why: pytest.fail(f"{n} {why}"))
    assert all(log.offer(each) for each in records)
    log.close()
    (path,) = spool.waiting()
    return path


def read(state: ProjectState, of: ModelVersion = FIRST) -> list[LoggedPredictions]:
    with duckdb.connect() as connection:
        batches = list(PredictionLog(state, connection).batches(of, altered := list[str]()))
        assert altered == []
        return batches


@pytest.fixture
def logged_in(tmp_path: Path) -> ProjectState:
    """The state of a project without a log."""
    return ProjectState(tmp_path)


def test_that_floats_came_narrow_is_kept(logged_in: ProjectState) -> None:
    write(logged_in, record(origin(), 2, 1)._replace(narrow=True), record(origin("000002"), 2, 2))
    with duckdb.connect() as connection:
        entries = [
            PredictionLog(logged_in, connection).find(given.ids[0])
            for given in (record(origin(), 2, 1), record(origin("000002"), 2, 2))
        ]
    assert [entry.facts["narrow"] for entry in entries if entry] == [True, False]


def test_segments_without_and_with_traces_are_read_together(logged_in: ProjectState) -> None:
    write(logged_in, record(origin(), 2, 1))
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    write(logged_in, record(origin(), 2, 2)._replace(trace_ids=["", trace_id]), record(origin(), 1, 3))
    assert sum(len(batch.ids) for batch in read(logged_in)) == 5
    with duckdb.connect() as connection:
        log = PredictionLog(logged_in, connection)
        entries = [log.find(name) for name in ("1-0", "2-0", "2-1", "3-0")]
    assert [entry.facts["trace_id"] for entry in entries if entry] == [None, None, trace_id, None]


def test_records_come_back(logged_in: ProjectState) -> None:
    given = record(origin(), 6, 1)
    write(logged_in, given, record(origin("000002"), 2, 2))
    (logged,) = read(logged_in)
    assert (logged.source, list(logged.ids)) == ("entities", list(given.ids))
    times = [logged.t, logged.asked_at, logged.read_start, logged.read_end, logged.skew_us]
    assert [set(each.tolist()) for each in times] == [{each} for each in given[2:7]]
    np.testing.assert_array_equal(logged.vectors, given.matrix)
    np.testing.assert_array_equal(logged.scores, given.scores)
    assert [text.encode() for text in logged.inputs] == given.inputs
    for place, (name, digest) in enumerate(given.origin.views):
        found = logged.reads[name]
        assert set(found.hashes) == {digest}
        assert found.status.tolist() == given.status[:, place].tolist()
        for field in FIELDS:
            assert getattr(found.versions, field).tolist() == getattr(given.versions[name], field).tolist()


def test_vectors_come_apart_from_entities(logged_in: ProjectState) -> None:
    write(logged_in, record(origin(), 2, 1), vector_record(origin(), 3, 2), record(origin(), 1, 3))
    entities, vectors = read(logged_in)
    assert (entities.source, len(entities.ids), set(entities.reads)) == ("entities", 3, {"card", "shop"})
    assert (vectors.source, len(vectors.ids), vectors.reads) == ("vectors", 3, {})


def test_several_outputs_come_back(logged_in: ProjectState) -> None:
    given = record(origin(), 4, 1, outputs=3)
    write(logged_in, given)
    (logged,) = read(logged_in)
    np.testing.assert_array_equal(logged.scores, given.scores)
    np.testing.assert_array_equal(logged.score, given.scores.max(axis=1))


def test_applied_positions_come_back(logged_in: ProjectState) -> None:
    given = record(origin(views=("card", "spend")), 4, 1, windowed=("spend",))
    write(logged_in, given)
    (logged,) = read(logged_in)
    slots, found = given.applied["spend"].slots, logged.reads["spend"].applied
    assert logged.reads["card"].applied is None
    assert found is not None
    assert [found.entity.tolist(), found.partition.tolist(), found.seq.tolist()] == [
        slots.entity.tolist(),
        slots.partition.tolist(),
        slots.seq.tolist(),
    ]


def test_which_versions_answered(logged_in: ProjectState) -> None:
    with duckdb.connect() as connection:
        assert PredictionLog(logged_in, connection).versions() == []
    write(logged_in, record(origin("000002"), 1, 1), record(origin(), 1, 2), vector_record(origin(), 1, 3))
    with duckdb.connect() as connection:
        found = PredictionLog(logged_in, connection).versions()
    assert [each.version for each in found] == ["000001", "000002"]


def test_vectors_of_unequal_length_are_damage(logged_in: ProjectState) -> None:
    path = spool_all(logged_in, record(origin(), 3, 1))
    table = pq.read_table(path)
    vectors = table["vector"].to_pylist()
    vectors[1] = vectors[1][:-1]
    column = pa.array(vectors, SCHEMA.field("vector").type)
    changed = table.set_column(table.column_names.index("vector"), "vector", column)
    pq.write_table(seal_rows(changed.select(CONTENT.names), table["file"][0].as_py()), path)
    with pytest.raises(StoreError, match="unequal length"):
        read(logged_in)


def test_roles_are_told_apart(logged_in: ProjectState) -> None:
    champion = record(origin(), 3, 1)
    tested = replace(origin(), role="challenger", policy=7)
    shadow = record(replace(origin("000002"), role="shadow", policy=7), 3, 1)  # the same ids
    write(logged_in, champion, record(tested, 2, 2), shadow)
    with duckdb.connect() as connection:
        log = PredictionLog(logged_in, connection)
        (both,) = log.batches(FIRST, [])
        assert sorted(both.roles) == ["challenger"] * 2 + ["champion"] * 3
        entries = [log.find(name) for name in champion.ids]
        assert {entry.model_version.version for entry in entries if entry} == {"000001"}
        assert [entry.facts["policy"] for entry in entries if entry] == [None] * 3
    rows = pq.read_table(prediction_files(logged_in)).filter(pc.field("role") != "champion").to_pylist()
    assert sorted((row["version"], row["role"], row["policy"]) for row in rows) == [
        *[("000001", "challenger", 7)] * 2,
        *[("000002", "shadow", 7)] * 3,
    ]
