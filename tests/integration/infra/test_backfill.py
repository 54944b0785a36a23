"""Materialisation of a range of event times, of times without a zone, and of more rows than one batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.infra.ingest.materialization import latest_rows, materialize
from skewless.infra.ingest.materialization.run_report import Pending, RunStep
from skewless.infra.log.log_columns import REJECT
from skewless.infra.reads.offline.changes import EventRange
from tests.worlds.latest import HOUR, LatestRedisWorld, same, times
from tests.worlds.plans import make_view

VIEW = make_view("created", path="created.parquet")
WIDE = make_view(
    "wide",
    path="wide.parquet",
    keys={"a": DType.INT64, "b": DType.STRING},
    features={"x": DType.FLOAT64, "s": DType.STRING},
)


def write(latest: LatestRedisWorld, *rows: tuple[int, int]) -> None:
    """Write one row of key 1 per pair of event time (hours) and value, published an hour later."""
    event, value = zip(*rows, strict=True)
    columns = {
        "id": pa.array([1] * len(rows), pa.int64()),
        "event": times(*(hour * HOUR for hour in event)),
        "created": times(*((hour + 1) * HOUR for hour in event)),
        "x": pa.array(value, pa.float64()),
    }
    latest.write(VIEW.source.path, columns)


def test_a_range_of_event_times_is_accepted_and_the_next_run_takes_the_rest(latest: LatestRedisWorld) -> None:
    write(latest, (10, 1), (20, 2), (30, 3), (40, 4))
    reports = latest.run(VIEW, events=EventRange(start_us=20 * HOUR, end_us=30 * HOUR))
    assert [(report.accepted, report.applied) for report in reports] == [(2, 1)]
    assert latest.online(VIEW, [1]).values["x"].tolist() == [3.0]
    assert latest.accepted(VIEW) == [2]
    assert latest.log(VIEW)["x"].to_pylist() == [2.0, 3.0, 1.0, 4.0]
    assert latest.online(VIEW, [1]).values["x"].tolist() == [4.0]
    assert [one.kind for one in latest.known(VIEW)] == ["bootstrap", "live"]


def test_a_backfill_brings_no_row_live(latest: LatestRedisWorld) -> None:
    write(latest, (40, 4))
    latest.run(VIEW)
    write(latest, (10, 1), (40, 4), (90, 9))
    latest.clock.set(200 * HOUR)
    assert [report.accepted for report in latest.run(VIEW, events=EventRange(end_us=10 * HOUR))] == [1]
    assert [one.kind for one in latest.known(VIEW)] == ["bootstrap", "bootstrap"]
    assert latest.accepted(VIEW) == [1]
    assert [one.kind for one in latest.known(VIEW)] == ["bootstrap", "bootstrap", "live"]
    assert same(latest.online(VIEW, [1]), latest.offline(VIEW, [1]))


def test_a_range_without_rows_leaves_no_run(latest: LatestRedisWorld) -> None:
    write(latest, (10, 1))
    latest.run(VIEW)
    before = sorted(latest.state.rglob("*"))
    assert [report.accepted for report in latest.run(VIEW, events=EventRange(start_us=50 * HOUR))] == [0]
    assert sorted(latest.state.rglob("*")) == before


def test_times_without_a_zone_are_utc_where_that_is_asked_for(latest: LatestRedisWorld) -> None:
    columns = {"id": [1], "event": pa.array([HOUR]).cast(pa.timestamp("us")), "x": [1.5]}
    latest.write(VIEW.source.path, {**columns, "created": times(2 * HOUR)})
    with pytest.raises(SourceError, match="without a zone"):
        latest.run(VIEW)
    assert [report.accepted for report in latest.run(VIEW, naive_is_utc=True)] == [1]
    assert latest.online(VIEW, [1]).versions.event_ts.tolist() == [HOUR]


def wide(latest: LatestRedisWorld, n: int) -> pa.Table:
    """Write n rows of some entities, every seventh without a key, in many small row groups."""
    chance = np.random.default_rng(7)
    text = [None if i % 5 == 0 else f"é{i}" * (i % 4) for i in range(n)]
    moments = times(*chance.integers(0, 90 * HOUR, n).tolist())
    table = pa.table(
        {
            "a": pa.array([None if i % 7 == 0 else i % 13 for i in range(n)], pa.int64()),
            "b": pa.array([f"{{{i % 3}}}" for i in range(n)]),
            "event": moments,
            "created": moments,
            "x": pa.array(chance.normal(size=n), mask=chance.random(n) < 0.2),
            "s": pa.array(text),
        }
    )
    pq.write_table(table, latest.root / WIDE.source.path, row_group_size=50)
    return table


def test_batches_ranges_and_row_groups_are_seams_that_do_not_show(
    latest: LatestRedisWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    n, steps = 1_000, list[RunStep]()
    table = wide(latest, n)
    monkeypatch.setattr(materialize, "_BATCH_ROWS", 110)
    monkeypatch.setattr(latest_rows, "_BATCH_ROWS", 60)
    monkeypatch.setattr(latest_rows, "_RANGE_ROWS", 170)
    (report,) = latest.run(WIDE, on_step=steps.append)
    rejected = table["a"].null_count
    assert (report.accepted, report.rejected) == (n - rejected, rejected)
    assert latest.log(WIDE)["__seq"].to_pylist() == list(range(n))
    assert latest.log(WIDE)[REJECT].null_count == n - rejected
    keys: list[list[int | str]] = [[a, f"{{{b}}}"] for a in range(13) for b in range(3)]
    online = latest.online(WIDE, *keys)
    assert online.has_row.all()
    assert same(online, latest.offline(WIDE, *keys))
    applying = [step for step in steps if step.doing == "applying"]
    assert [step.done for step in applying] == sorted(step.done for step in applying)
    assert applying[-1].done == applying[-1].total == n
    assert [step.done for step in steps if step.doing == "accepting"][-1] == n


def test_a_dry_run_counts_rows_and_entities(latest: LatestRedisWorld) -> None:
    wide(latest, 100)
    with latest.opened_job() as job:
        pending = job.pending([WIDE])
    assert pending == [Pending(view="wide", accepted=85, rejected=15, entities=39)]
    assert not (latest.state / "log").exists()


def add_file(latest: LatestRedisWorld, name: str, rows: dict[int, int], *, with_x: bool = True) -> None:
    """Write a file of a folder: one row per event hour and key, published an hour later."""
    columns = {
        "id": pa.array(list(rows.values()), pa.int64()),
        "event": times(*(hour * HOUR for hour in rows)),
        "created": times(*((hour + 1) * HOUR for hour in rows)),
    }
    latest.write(f"parts/{name}", columns | ({"x": pa.array([float(hour) for hour in rows])} if with_x else {}))


def test_of_a_grown_folder_only_new_files_are_read_whole(latest: LatestRedisWorld) -> None:
    parts = make_view("parts", path="parts")
    add_file(latest, "a.parquet", {10: 1, 20: 2}, with_x=False)
    add_file(latest, "b.parquet", {30: 3, 150: 1})
    assert latest.accepted(parts) == [3]
    add_file(latest, "c.parquet", {5: 1, 40: 4})
    latest.clock.set(151 * HOUR)
    with latest.opened_job() as job:
        changes, _ = job.changes(parts, latest.clock.now_us())
    found = [([Path(file).name for file in share.table.files], share.window.after_us) for share in changes.slices]
    assert found == [(["c.parquet"], None), (["a.parquet", "b.parquet"], 100 * HOUR)]
    assert latest.accepted(parts) == [3]
    assert sorted(latest.log(parts)["__event_ts"].to_pylist()) == [hour * HOUR for hour in (5, 10, 20, 30, 40, 150)]
    assert latest.log(parts).filter(pc.equal(latest.log(parts)["__event_ts"], 10 * HOUR))["x"].to_pylist() == [None]
    assert same(latest.online(parts, [1], [2], [3], [4]), latest.offline(parts, [1], [2], [3], [4]))
    assert latest.online(parts, [1], [4]).values["x"].tolist() == [150.0, 40.0]
    assert latest.accepted(parts) == [0]


def test_a_file_that_was_moved_brings_nothing_new(latest: LatestRedisWorld) -> None:
    parts = make_view("parts", path="parts")
    add_file(latest, "a.parquet", {10: 1, 20: 2})
    add_file(latest, "b.parquet", {30: 3})
    latest.run(parts)
    (latest.root / "parts" / "a.parquet").rename(latest.root / "parts" / "z.parquet")
    assert latest.accepted(parts) == [0]
