"""Materialisation with real files, a real log and a real server: what is accepted, when, and what is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from skewless.contract.dtypes import DType
from skewless.contract.errors import ConflictError, GateError, SourceError, StoreError
from skewless.contract.keys import marker_key
from skewless.contract.plan import View
from skewless.infra.ingest.materialization.skipped_rows import read_skipped
from skewless.infra.log.log_columns import RAW, REJECT
from skewless.infra.platform.storage.database import Row
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.reads.online.redis_store import RedisWriter
from tests.worlds.latest import HOUR, LatestRedisWorld, same, times
from tests.worlds.plans import make_view

CREATED = make_view("created", path="created.parquet")
DELAYED = make_view("delayed", path="delayed.parquet", created=None, delay_us=HOUR)
NOW = 100 * HOUR


def write(latest: LatestRedisWorld, view: View, *rows: tuple[int, int, int | None, float]) -> Path:
    """Write rows of key, event time, creation time (both in hours) and value."""
    key, event, created, value = zip(*rows, strict=True) if rows else ((),) * 4
    columns: dict[str, Any] = {
        "id": pa.array(key, pa.int64()),
        "event": times(*(hour * HOUR for hour in event)),
        "created": times(*(None if hour is None else hour * HOUR for hour in created)),
        "x": pa.array(value, pa.float64()),
    }
    return latest.write(view.source.path, columns)


def test_1_4_rows_are_accepted_as_they_are_published(latest: LatestRedisWorld) -> None:
    write(latest, CREATED, (1, 90, 91, 1.0), (1, 99, 101, 2.0), (2, 99, 100, 3.0))
    write(latest, DELAYED, (1, 98, None, 1.0), (1, 99, None, 2.0), (1, 100, None, 3.0))
    assert latest.accepted(CREATED, DELAYED) == [2, 2]
    assert latest.online(CREATED, [1], [2]).values["x"].tolist() == [1.0, 3.0]
    assert latest.online(DELAYED, [1]).values["x"].tolist() == [2.0]
    latest.clock.set(NOW + HOUR - 1)
    assert latest.accepted(CREATED, DELAYED) == [0, 0]
    latest.clock.set(NOW + HOUR)
    assert latest.accepted(CREATED, DELAYED) == [1, 1]
    assert latest.online(CREATED, [1]).values["x"].tolist() == [2.0]
    assert latest.online(DELAYED, [1]).values["x"].tolist() == [3.0]


def test_a_run_with_nothing_to_do_leaves_no_trace(latest: LatestRedisWorld) -> None:
    write(latest, CREATED, (1, 90, 91, 1.0))
    latest.run(CREATED)
    before = traces(latest)
    latest.clock.set(NOW + HOUR)
    assert latest.accepted(CREATED) == [0]
    assert traces(latest) == before


def test_2_6_a_run_that_lost_its_lease_is_completed_by_the_next(latest: LatestRedisWorld) -> None:
    write(latest, CREATED, (1, 90, 91, 1.0))
    database = ProjectState(latest.state).database

    def lose(*_: object) -> None:
        database.execute("UPDATE leases SET token = token + 1, holder = 'elsewhere', until_us = 0")

    with pytest.raises(ConflictError, match="lease 'materialize' with token 1: was lost to elsewhere"):
        latest.run(CREATED, check=lose)
    assert latest.known(CREATED) == []
    # The lease is checked in the transaction of the append, so the first run has appended nothing.
    assert latest.accepted(CREATED) == [1]
    assert [(item.first, item.last) for item in latest.known(CREATED)] == [(0, 0)]
    assert latest.online(CREATED, [1]).values["x"].tolist() == [1.0]


def traces(latest: LatestRedisWorld) -> tuple[dict[Path, bytes], list[Row]]:
    """Return the files of the state folder, and the rows of the database without its leases."""
    files = [path for path in latest.state.rglob("*") if path.is_file() and not path.name.startswith("skewless.db")]
    query = ProjectState(latest.state).database.query
    rows = [
        row
        for table in ("documents", "records", "materializations", "coverage")
        for row in query(f"SELECT * FROM {table}")
    ]
    return {path: path.read_bytes() for path in files}, rows


def test_2_3_late_rows_and_corrections_in_a_changed_file(latest: LatestRedisWorld) -> None:
    write(latest, CREATED, (1, 90, 91, 1.0), (2, 95, 95, 2.0))
    latest.run(CREATED)
    latest.clock.set(NOW + 1)
    # For 1: a correction without a newer creation time; for 2: a late row, and a correction that stands twice.
    rows = [(1, 90, 91, 1.5), (2, 95, 95, 2.0), (2, 80, 99, 9.0), (2, 95, 96, 2.5), (2, 95, 96, 2.5)]
    write(latest, CREATED, *rows)
    assert latest.accepted(CREATED) == [4]
    read = latest.online(CREATED, [1], [2])
    assert read.values["x"].tolist() == [1.5, 2.5]
    assert same(read, latest.offline(CREATED, [1], [2]))
    # Training still sees the value that was served before the correction.
    assert latest.offline(CREATED, [1], [2], t=NOW).values["x"].tolist() == [1.0, 2.0]


def test_2_1_of_rows_that_come_together_created_decides_and_null_ranks_below_a_value(latest: LatestRedisWorld) -> None:
    write(latest, CREATED, (1, 90, 91, 1.0), (1, 90, None, 9.0), (2, 90, 92, 2.0), (2, 90, 91, 9.0), (2, 89, 99, 9.0))
    latest.run(CREATED)
    read = latest.online(CREATED, [1], [2])
    assert read.values["x"].tolist() == [1.0, 2.0]
    assert same(read, latest.offline(CREATED, [1], [2]))


def test_2_3_a_tombstone_deletes_and_a_later_row_brings_back(latest: LatestRedisWorld) -> None:
    view = make_view(tombstone="gone")
    table = {"id": [1, 1], "event": times(HOUR, 2 * HOUR), "created": times(HOUR, 2 * HOUR), "x": [1.0, None]}
    latest.write("v.parquet", {**table, "gone": [None, True]})
    latest.run(view)
    assert latest.online(view, [1]).has_row.tolist() == [False]
    assert same(latest.online(view, [1]), latest.offline(view, [1]))
    more = {"id": [1], "event": times(3 * HOUR), "created": times(3 * HOUR), "x": [3.0], "gone": [False]}
    latest.write("v.parquet", more)
    latest.run(view)
    assert latest.online(view, [1]).values["x"].tolist() == [3.0]


def test_2_5_bad_rows_go_to_quarantine_with_reason_and_raw_row(latest: LatestRedisWorld) -> None:
    view = make_view(keys={"id": DType.INT32}, features={"n": DType.INT64})
    latest.write(
        "v.parquet",
        {
            "id": pa.array([1, None, 2**31, 4, 5, 6, 7], pa.int64()),
            "event": times(HOUR, HOUR, HOUR, HOUR, 2 * HOUR, NOW + 1, None),
            "created": times(*[HOUR] * 7),
            "n": pa.array([1.0, 2.0, 3.0, 4.5, 5.0, 6.0, None], pa.float64()),
        },
    )
    (report,) = latest.run(view)
    assert (report.accepted, report.rejected) == (2, 4)
    assert report.left_out == {
        "key 'id' is null": 2,
        "column 'n' does not fit its declared type": 1,
        "event time is null": 1,
        "event time lies in the future": 1,
    }
    reasons = {row["id"]: row[REJECT] for row in latest.rejected(view) if row["id"] is not None}
    assert reasons == {
        4: "column 'n' does not fit its declared type",
        7: "event time is null",
    }
    by_raw = {json.loads(row[RAW])["id"]: row[REJECT] for row in latest.rejected(view)}
    assert by_raw[None] == "key 'id' is null"
    assert by_raw[2**31].startswith("key 'id' is null")
    assert json.loads(next(row[RAW] for row in latest.rejected(view) if row["id"] == 4))["n"] == 4.5
    assert latest.online(view, [1], [4], [5], [6], [7]).has_row.tolist() == [True, False, True, False, False]
    assert same(latest.online(view, [1], [4], [6]), latest.offline(view, [1], [4], [6]))
    # Rows in the log are not compared again; the row from the future has become due.
    os.utime(latest.root / "v.parquet", ns=(1, 1))
    latest.clock.set(NOW + 1)
    assert [(one.accepted, one.rejected, one.left_out) for one in latest.run(view)] == [(1, 0, {})]
    assert same(latest.online(view, [6]), latest.offline(view, [6]))
    assert {item.reason: item.rows for item in read_skipped(ProjectState(latest.state))} == {
        "key 'id' is null": 2,
        "column 'n' does not fit its declared type": 1,
        "event time is null": 1,
    }


def vanish(path: Path) -> None:
    path.unlink()


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(("harm", "message"), [(vanish, "has no file"), (damage, "cannot be read")])
def test_a_source_that_is_away_or_broken_keeps_the_last_good_values(
    latest: LatestRedisWorld, harm: Callable[[Path], None], message: str
) -> None:
    write(latest, DELAYED, (1, 90, None, 1.0))
    harm_me = write(latest, CREATED, (1, 90, 91, 1.0))
    latest.run(CREATED, DELAYED)
    log = latest.log(CREATED)
    harm(harm_me)
    write(latest, DELAYED, (1, 90, None, 1.0), (1, 91, None, 2.0))
    latest.clock.set(NOW + 5)
    latest.forget_online()
    with pytest.raises(SourceError, match=f"source of view 'created': {message}"):
        latest.run(CREATED, DELAYED)
    assert latest.log(CREATED).equals(log)
    # The other view is up to date, what was lost is served again, and the run has ended.
    assert latest.online(CREATED, [1]).values["x"].tolist() == [1.0]
    assert latest.online(DELAYED, [1]).values["x"].tolist() == [2.0]
    assert [(one.kind, one.ended_us) for one in latest.known(DELAYED)] == [("bootstrap", NOW), ("live", NOW + 5)]


def test_a_gate_that_refuses_keeps_the_last_good_values(latest: LatestRedisWorld) -> None:
    write(latest, CREATED, (1, 90, 91, 1.0))
    write(latest, DELAYED, (1, 90, None, 1.0))
    latest.run(CREATED)
    write(latest, CREATED, (1, 90, 91, 1.0), (1, 92, 93, -1.0))
    latest.forget_online()
    seen = []

    def gate(view: View, rows: Path) -> None:
        seen.append((view.name, pq.read_table(rows)["x"].to_pylist()))
        if view is CREATED:
            raise GateError("view 'created'", "is negative", fix="correct it")

    with pytest.raises(GateError, match="is negative"):
        latest.run(CREATED, DELAYED, check=gate)
    assert seen == [("created", [-1.0]), ("delayed", [1.0])]
    assert latest.log(CREATED).num_rows == 1
    assert latest.online(CREATED, [1]).values["x"].tolist() == [1.0]
    assert latest.online(DELAYED, [1]).values["x"].tolist() == [1.0]
    assert latest.accepted(CREATED) == [1]


def test_a_source_that_changes_while_it_is_read_is_read_again(latest: LatestRedisWorld) -> None:
    write(latest, CREATED, (1, 90, 91, 1.0))

    def rewritten(_view: View, _rows: Path) -> None:
        write(latest, CREATED, (1, 90, 91, 1.0), (1, 92, 93, 2.0))

    assert latest.accepted(CREATED, check=rewritten) == [1]
    assert latest.accepted(CREATED) == [1]
    assert latest.online(CREATED, [1]).values["x"].tolist() == [2.0]


@pytest.mark.parametrize("column", ["event", "created"])
def test_1_1_a_time_column_without_zone_is_refused(latest: LatestRedisWorld, column: str) -> None:
    write(latest, CREATED, (1, 90, 91, 1.0))
    latest.run(CREATED)
    table = {"id": [1], "event": times(92 * HOUR), "created": times(93 * HOUR), "x": [2.0]}
    table[column] = pa.array([94 * HOUR], pa.int64()).cast(pa.timestamp("us"))
    latest.write("created.parquet", table)
    with pytest.raises(SourceError, match=f"column '{column}': is a time without a zone .got 'TIMESTAMP'.*zone UTC"):
        latest.run(CREATED)
    assert latest.online(CREATED, [1]).values["x"].tolist() == [1.0]


def test_a_column_that_went_or_changed_its_type_is_named(latest: LatestRedisWorld) -> None:
    latest.write("v.parquet", {"id": [1], "event": times(HOUR), "created": times(HOUR)})
    with pytest.raises(SourceError, match=r"source of view 'v': has no such column .got 'x'.*id, event, created"):
        latest.run(make_view())
    latest.write("v.parquet", {"id": [1], "event": times(HOUR), "created": times(HOUR), "x": ["1.5"]})
    with pytest.raises(SourceError, match="source of view 'v' column 'x': does not fit the declared type float64"):
        latest.run(make_view())


def test_4_5_a_lost_redis_is_filled_again_and_known_at_stays(latest: LatestRedisWorld) -> None:
    write(latest, CREATED, (1, 90, 91, 1.0), (2, 90, 91, 5.0))
    latest.run(CREATED)
    latest.clock.set(NOW + 1)
    write(latest, CREATED, (1, 90, 91, 1.0), (2, 90, 91, 5.0), (1, 92, 93, 2.0))
    latest.run(CREATED)
    before, known = latest.online(CREATED, [1], [2]), latest.known(CREATED)
    latest.forget_online()
    assert latest.online(CREATED, [1], [2]).has_row.tolist() == [False, False]
    latest.clock.set(NOW + 2)
    (report,) = latest.run(CREATED)
    assert (report.accepted, report.applied, report.written) == (0, 2, 2)
    assert same(latest.online(CREATED, [1], [2]), before)
    assert latest.known(CREATED) == known


def test_2_6_a_view_that_began_empty_learns_its_rows_live(latest: LatestRedisWorld) -> None:
    write(latest, CREATED)
    assert latest.accepted(CREATED) == [0]
    assert latest.known(CREATED) == []
    latest.clock.set(NOW + 7)
    write(latest, CREATED, (1, 90, 91, 1.0))
    assert latest.accepted(CREATED) == [1]
    assert [(one.kind, one.ended_us) for one in latest.known(CREATED)] == [("live", NOW + 7)]
    assert latest.offline(CREATED, [1], t=NOW + 6).has_row.tolist() == [False]


def test_2_6_the_observed_delay_is_that_of_live_rows(latest: LatestRedisWorld) -> None:
    write(latest, DELAYED, (1, 98, None, 1.0))
    latest.run(DELAYED)
    with latest.connect() as connection:
        assert OfflineViews(ProjectState(latest.state), connection).observed_delay_us(DELAYED) is None
    write(latest, DELAYED, (1, 98, None, 1.0), (1, 99, None, 2.0), (2, 99, None, 2.0), (3, 100, None, 2.0))
    latest.clock.set(NOW + 2 * HOUR)
    assert latest.accepted(DELAYED) == [3]
    with latest.connect() as connection:
        assert OfflineViews(ProjectState(latest.state), connection).observed_delay_us(DELAYED) == 3 * HOUR


def forget_log(latest: LatestRedisWorld) -> None:
    """Lose the catalog, too, as with an older copy of the database."""
    for table in ("log_partitions", "segments"):
        ProjectState(latest.state).database.execute(f"DELETE FROM {table}")


def test_a_log_that_was_lost_is_told_from_its_marker(latest: LatestRedisWorld) -> None:
    write(latest, CREATED, (1, 90, 91, 1.0))
    latest.run(CREATED)
    (latest.state / "log").rename(latest.root / "elsewhere")
    write(latest, CREATED)
    with pytest.raises(StoreError, match=r"log file .*/0{20}-.*\.parquet: is missing"):
        latest.run(CREATED)
    forget_log(latest)
    with pytest.raises(StoreError, match=r"view 'created': is ahead of the log, so this online store.*got 0"):
        latest.run(CREATED)


def test_a_log_that_was_lost_with_its_redis_is_made_again(latest: LatestRedisWorld) -> None:
    write(latest, CREATED, (1, 90, 91, 1.0))
    latest.run(CREATED)
    (latest.state / "log").rename(latest.root / "elsewhere")
    forget_log(latest)
    latest.forget_online()
    assert latest.accepted(CREATED) == [1]
    assert latest.online(CREATED, [1]).values["x"].tolist() == [1.0]


def test_a_clock_that_goes_back_accepts_nothing_twice(latest: LatestRedisWorld) -> None:
    write(latest, CREATED, (1, 90, 91, 1.0), (1, 99, 99, 2.0))
    assert latest.accepted(CREATED) == [2]
    latest.clock.set(95 * HOUR)
    assert latest.accepted(CREATED) == [0]
    write(latest, CREATED, (1, 90, 91, 1.0), (1, 99, 99, 2.0), (1, 90, 92, 3.0))
    assert latest.accepted(CREATED) == [1]
    latest.clock.set(NOW + HOUR)
    assert latest.accepted(CREATED) == [0]
    assert latest.log(CREATED).num_rows == 3


def test_a_marker_tells_how_far_a_view_was_applied(latest: LatestRedisWorld) -> None:
    write(latest, CREATED, (1, 90, 91, 1.0), (2, 90, 91, 1.0))
    latest.run(CREATED)
    writer = RedisWriter(latest.url)
    assert writer.marker(marker_key(latest.project, CREATED)) == 1
    writer.close()
    with redis.Redis.from_url(latest.url) as client:
        assert client.exists(marker_key(latest.project, CREATED)) == 1
