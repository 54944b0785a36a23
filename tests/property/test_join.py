"""SEMANTICS 2.1, 2.2, 2.6: the point-in-time join against pandas and against plain Python."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.dtypes import DType
from skewless.contract.plan import View
from skewless.contract.rows import NO_TIME, ViewRead
from skewless.contract.status import Status
from skewless.contract.vector import view_status
from skewless.infra.log.log_columns import CREATED, EVENT, INGEST, RAW, REJECT, RUN, TOMBSTONE
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.runs import Coverage, RunLedger
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.views import OfflineViews
from tests.property.fewer import FEWER
from tests.worlds.latest import state_folder
from tests.worlds.plans import make_view

DELAY, TTL = 2, 3
VIEW = make_view(
    keys={"id": DType.INT64, "in": DType.STRING}, features={"order_y": DType.INT64}, ttl_us=TTL, delay_us=DELAY
)
# Few keys and few moments, so that equal times, corrections and late rows are the rule.
MOMENTS = st.sampled_from([*range(-1, 3), *range(-1, 3), -62_135_596_800_000_000, 253_402_300_799_999_999])
KEYS = st.sampled_from([(-1, "日|{"), (2**53 + 1, "")])


@dataclass(frozen=True, kw_only=True)
class LogRow:
    """One accepted row, and when serving could have known it."""

    key: tuple[int, str]
    event: int
    created: int | None
    tombstone: bool
    run: int
    seq: int
    known: int

    @property
    def rank(self) -> tuple[int, bool, int, int]:
        return self.event, self.created is not None, self.created or 0, self.seq


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The rows of one run, which ended at a moment."""

    rows: list[tuple[tuple[int, str], int, int | None, bool]]
    ended: int


EntityTime = tuple[int | None, str | None, int]
ROW = st.tuples(KEYS, MOMENTS, st.none() | MOMENTS, st.booleans())
BATCHES = st.lists(
    st.builds(lambda rows, gap: (rows, gap), st.lists(ROW, min_size=2, max_size=8), st.integers(0, 5)), max_size=4
)
STRANGERS = st.sampled_from([(None, ""), (-1, None), (None, None), (-1, "")])
TIMES = st.sampled_from([*range(-2, 10), 20, 20, 20, 253_402_300_799_999_999])
ASKS = st.lists(st.builds(lambda key, t: (*key, t), KEYS | KEYS | STRANGERS, TIMES), min_size=1, max_size=12)


def batches(drawn: list[tuple[list[tuple[tuple[int, str], int, int | None, bool]], int]], start: int) -> list[Batch]:
    ended, made = start, []
    for rows, gap in drawn:
        ended += gap
        made.append(Batch(rows=rows, ended=ended))
    return made


def write(state: Path, runs: list[Batch], *, live_from: int, view: View = VIEW) -> list[LogRow]:
    """Append each batch as a run of its own, with a quarantined row in between; return the accepted rows."""
    log, ledger = PartitionLog(ProjectState(state), view.partition), RunLedger(ProjectState(state).database)
    accepted: list[LogRow] = []
    for i, batch in enumerate(runs):
        run = ledger.start(batch.ended - 1)
        first = log.next_seq()
        log.append(table_of(batch, run))
        kind: Literal["live", "bootstrap"] = "live" if i >= live_from else "bootstrap"
        cover = Coverage(first=first, last=log.next_seq() - 1, kind=kind)
        ledger.finish(run, {view.partition: cover}, batch.ended)
        for seq, (key, event, created, tombstone) in enumerate(batch.rows, start=first + 1):
            declared = event + DELAY if created is None else created
            known = batch.ended if kind == "live" else max(event, declared)
            accepted.append(
                LogRow(key=key, event=event, created=created, tombstone=tombstone, run=run, seq=seq, known=known)
            )
    return accepted


def table_of(batch: Batch, run_id: int) -> pa.Table:
    # A row in quarantine comes first: it holds a position, and nothing may ever find it.
    rows = [((0, ""), 8, 8, False), *batch.rows]
    n = len(rows)
    return pa.table(
        {
            "id": pa.array([row[0][0] for row in rows], pa.int64()),
            "in": pa.array([row[0][1] for row in rows], pa.string()),
            "order_y": pa.array(range(n), pa.int64()),
            EVENT: pa.array([row[1] for row in rows], pa.int64()),
            CREATED: pa.array([row[2] for row in rows], pa.int64()),
            TOMBSTONE: pa.array([row[3] for row in rows]),
            REJECT: pa.array(["bad", *[None] * (n - 1)], pa.string()),
            RAW: pa.array(["{}", *[None] * (n - 1)], pa.string()),
            INGEST: pa.array([batch.ended] * n, pa.int64()),
            RUN: pa.array([run_id] * n, pa.int64()),
        }
    )


def entities(asks: list[EntityTime]) -> pa.Table:
    """Return the entity rows in many chunks."""
    parts = [
        pa.table(
            {
                "in": pa.array([name], pa.string()),
                "id": pa.array([key], pa.int64()),
                "__t": pa.array([t], pa.int64()),
            }
        )
        for key, name, t in asks
    ]
    return pa.concat_tables(parts)


def outcome(row: LogRow | None, t: int) -> tuple[str, int | None]:
    """Return status and position of what a read at t makes of a row, by SEMANTICS 2.1 and 2.5."""
    if row is None or row.tombstone:
        return "NOT_FOUND", None
    if row.event > t:
        return "FUTURE", row.seq
    return ("EXPIRED" if t - row.event > TTL else "PRESENT"), row.seq


def outcomes(read: ViewRead, asks: list[EntityTime]) -> list[tuple[str, int | None]]:
    status = view_status(read, np.array([t for _, _, t in asks], dtype=np.int64), TTL)
    return [
        (Status(one).name, int(seq) if found else None)
        for one, seq, found in zip(status, read.versions.seq, read.has_row, strict=True)
    ]


def asked_rows(rows: list[LogRow], ask: EntityTime) -> list[LogRow]:
    return [row for row in rows if row.key == ask[:2]]


def event_time(rows: list[LogRow], ask: EntityTime) -> tuple[str, int | None]:
    candidates = [row for row in asked_rows(rows, ask) if row.event <= ask[2]]
    return outcome(max(candidates, key=lambda row: row.rank, default=None), ask[2])


def online_history(rows: list[LogRow], ask: EntityTime) -> tuple[str, int | None]:
    """Apply rows to a store in the order in which they became known, newer wins; read it at t."""
    stored: LogRow | None = None
    for row in sorted(asked_rows(rows, ask), key=lambda row: (row.known, -row.seq)):
        if row.known > ask[2]:
            break
        if stored is None or row.rank > stored.rank:
            stored = row
    return outcome(stored, ask[2])


def by_pandas(rows: list[LogRow], asks: list[EntityTime]) -> list[int | None]:
    """Return the position that ``merge_asof`` finds for each entity row, tombstones and expired ones too."""
    latest: dict[tuple[tuple[int, str], int], LogRow] = {}
    for row in sorted(rows, key=lambda row: row.rank):
        latest[row.key, row.event] = row
    right = pd.DataFrame(
        [(row.key[0], row.key[1], row.event, row.seq) for row in latest.values()], columns=["id", "in", "at", "seq"]
    ).astype({"id": "int64", "in": "object", "at": "int64", "seq": "int64"})
    # Null keys find nothing: pandas would match None with None, and an Int64 id has no null.
    left = pd.DataFrame(
        [(i, key, name, t) for i, (key, name, t) in enumerate(asks) if key is not None and name is not None],
        columns=["i", "id", "in", "at"],
    ).astype({"id": "int64", "in": "object", "at": "int64"})
    merged = pd.merge_asof(left.sort_values("at"), right.sort_values("at"), on="at", by=["id", "in"])
    found = {int(i): int(seq) for i, seq in zip(merged["i"], merged["seq"], strict=True) if not pd.isna(seq)}
    return [found.get(i) for i in range(len(asks))]


@FEWER
@given(BATCHES, ASKS)
def test_2_1_event_time_finds_what_plain_python_finds(
    connection: duckdb.DuckDBPyConnection,
    drawn: list[tuple[list[tuple[tuple[int, str], int, int | None, bool]], int]],
    asks: list[EntityTime],
) -> None:
    with state_folder() as state:
        rows = write(state, batches(drawn, 0), live_from=1)
        read = OfflineViews(ProjectState(state), connection).read_view(VIEW, entities(asks), "event_time")
    assert outcomes(read, asks) == [event_time(rows, ask) for ask in asks]


@FEWER
@given(BATCHES, ASKS)
def test_2_2_event_time_finds_what_merge_asof_finds(
    connection: duckdb.DuckDBPyConnection,
    drawn: list[tuple[list[tuple[tuple[int, str], int, int | None, bool]], int]],
    asks: list[EntityTime],
) -> None:
    with state_folder() as state:
        rows = write(state, batches(drawn, 0), live_from=1)
        read = OfflineViews(ProjectState(state), connection).read_view(VIEW, entities(asks), "event_time")
    found = [None if seq < 0 else seq for seq in read.versions.seq.tolist()]
    assert found == by_pandas(rows, asks)


@FEWER
@given(BATCHES, ASKS, st.integers(-4, 3), st.integers(0, 3))
def test_2_2_knowledge_finds_what_the_online_store_held(
    connection: duckdb.DuckDBPyConnection,
    drawn: list[tuple[list[tuple[tuple[int, str], int, int | None, bool]], int]],
    asks: list[EntityTime],
    start: int,
    live_from: int,
) -> None:
    with state_folder() as state:
        rows = write(state, batches(drawn, start), live_from=live_from)
        read = OfflineViews(ProjectState(state), connection).read_view(VIEW, entities(asks), "knowledge")
    assert outcomes(read, asks) == [online_history(rows, ask) for ask in asks]


@given(BATCHES, ASKS, st.integers(-4, 3), st.integers(0, 3))
def test_2_2_knowledge_needs_no_time_of_creation(
    connection: duckdb.DuckDBPyConnection,
    drawn: list[tuple[list[tuple[tuple[int, str], int, int | None, bool]], int]],
    asks: list[EntityTime],
    start: int,
    live_from: int,
) -> None:
    view = replace(VIEW, source=replace(VIEW.source, created_column=None))
    bare: list[tuple[list[tuple[tuple[int, str], int, int | None, bool]], int]]
    bare = [([(key, event, None, dead) for key, event, _, dead in rows], gap) for rows, gap in drawn]
    with state_folder() as state:
        rows = write(state, batches(bare, start), live_from=live_from, view=view)
        read = OfflineViews(ProjectState(state), connection).read_view(view, entities(asks), "knowledge")
    assert outcomes(read, asks) == [online_history(rows, ask) for ask in asks]


@FEWER
@given(BATCHES, BATCHES, ASKS, st.sampled_from(["event_time", "knowledge"]))
def test_2_6_a_mark_leaves_out_what_came_later(
    connection: duckdb.DuckDBPyConnection,
    drawn: list[tuple[list[tuple[tuple[int, str], int, int | None, bool]], int]],
    later: list[tuple[list[tuple[tuple[int, str], int, int | None, bool]], int]],
    asks: list[EntityTime],
    order: Literal["event_time", "knowledge"],
) -> None:
    with state_folder() as state:
        views = OfflineViews(ProjectState(state), connection)
        write(state, batches(drawn, 0), live_from=1)
        mark = views.take_snapshot(VIEW)
        before = views.find_positions(VIEW, entities(asks), order)
        write(state, batches(later, 0), live_from=1)
        after = views.find_positions(VIEW, entities(asks), order, mark)
    assert after.tolist() == before.tolist()


@pytest.mark.parametrize("order", ["event_time", "knowledge"])
def test_2_2_entity_rows_keep_their_order_and_duplicates(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, order: Literal["event_time", "knowledge"]
) -> None:
    rows = [((0, "a"), event, None, False) for event in range(5)]
    write(tmp_path, [Batch(rows=list(rows), ended=0)], live_from=0)
    asks: list[EntityTime] = [
        (0, "a", 4),
        (None, "a", 4),
        (0, "a", 1),
        (0, None, 4),
        (0, "a", 4),
        (0, "b", 4),
        (0, "a", -1),
    ]
    read = OfflineViews(ProjectState(tmp_path), connection).read_view(VIEW, entities(asks), order)
    latest = {"event_time": [4, 1, 4], "knowledge": [4, 4, 4]}[order]
    assert read.values["order_y"][[0, 2, 4]].tolist() == [value + 1 for value in latest]
    assert read.has_row.tolist() == [True, False, True, False, True, False, False]
    assert read.versions.event_ts[[1, 3, 5, 6]].tolist() == [NO_TIME] * 4


def test_2_6_rows_that_no_finished_run_applied_are_not_known(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    log = PartitionLog(ProjectState(tmp_path), VIEW.partition)
    views = OfflineViews(ProjectState(tmp_path), connection)
    run = views.ledger.start(0)
    log.append(table_of(Batch(rows=[((0, "a"), 1, None, False)], ended=1), run))
    asked = entities([(0, "a", 8)])
    assert not views.read_view(VIEW, asked, "knowledge").has_row[0]
    assert views.read_view(VIEW, asked, "event_time").has_row[0]


def test_2_6_a_run_of_many_rows_ends_for_all_of_them_at_once(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    sizes, ends = [3, 700, 1, 255, 600], [10, 20, 30, 40, 50]
    written = [
        Batch(rows=[((run, str(i)), 1, None, False) for i in range(size)], ended=ended)
        for run, (size, ended) in enumerate(zip(sizes, ends, strict=True))
    ]
    rows = write(tmp_path, written, live_from=0)
    asks: list[EntityTime] = [(*row.key, row.known + shift) for row in rows for shift in (-1, 0)]
    read = OfflineViews(ProjectState(tmp_path), connection).read_view(VIEW, entities(asks), "finished")
    assert read.has_row.tolist() == [False, True] * len(rows)
    assert read.versions.seq[1::2].tolist() == [row.seq for row in rows]


def test_2_6_a_mark_leaves_out_a_run_that_ended_later(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    log = PartitionLog(ProjectState(tmp_path), VIEW.partition)
    views = OfflineViews(ProjectState(tmp_path), connection)
    run = views.ledger.start(0)
    log.append(table_of(Batch(rows=[((0, "a"), 1, None, False)], ended=1), run))
    mark = views.take_snapshot(VIEW)
    views.ledger.finish(run, {VIEW.partition: Coverage(first=0, last=1, kind="live")}, 2)
    asked = entities([(0, "a", 8)])
    assert views.find_positions(VIEW, asked, "knowledge", mark).tolist() == [-1]
    assert views.find_positions(VIEW, asked, "knowledge").tolist() == [1]
    assert views.find_positions(VIEW, asked, "event_time", mark).tolist() == [1]


def test_2_5_what_is_not_found_is_null_beside_nulls(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    view = make_view(features={"n": DType.INT64, "s": DType.STRING}, created=None)
    rows = table_of(Batch(rows=[((1, "a"), 1, None, False), ((2, "a"), 1, None, True)], ended=1), 1)
    columns = {"n": pa.array([1, None, 2**53 + 1], pa.int64()), "s": pa.array(["x", None, "y"], pa.string())}
    for name, column in columns.items():
        rows = rows.append_column(name, column)
    PartitionLog(ProjectState(tmp_path), view.partition).append(rows.drop_columns(["in", "order_y"]))
    asked = pa.table({"id": pa.array([2, 3, 1, None], pa.int64()), "__t": pa.array([1, 1, 1, 1], pa.int64())})
    read = OfflineViews(ProjectState(tmp_path), connection).read_view(view, asked, "event_time")
    assert read.has_row.tolist() == [False, False, True, False]
    assert {name: null.tolist() for name, null in read.nulls.items()} == {"n": [True] * 4, "s": [True] * 4}
    assert read.values["s"].tolist() == [None] * 4
    assert read.versions.seq.tolist() == [2, -1, 1, -1]


def test_nothing_is_found_in_an_empty_log(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    read = OfflineViews(ProjectState(tmp_path), connection).read_view(VIEW, entities([(0, "a", 8)]), "knowledge")
    assert (read.has_row.tolist(), read.available) == ([False], True)
