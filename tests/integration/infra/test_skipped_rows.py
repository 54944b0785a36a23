"""Rows that are not in the online store: counted by reason, shown, stored for `status`, rejected with ``strict``."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from skewless.contract.dtypes import DType
from skewless.contract.errors import GateError
from skewless.infra.ingest.materialization.skipped_rows import read_skipped
from skewless.infra.platform.storage.project_state import ProjectState
from tests.worlds.latest import HOUR, LatestRedisWorld, same, times
from tests.worlds.plans import make_view

NOW = 100 * HOUR
VIEW = make_view()


def test_2_5_what_waits_is_counted_and_comes_when_it_is_due(latest: LatestRedisWorld) -> None:
    view = make_view(delay_us=HOUR)
    latest.write(
        "v.parquet",
        {
            "id": pa.array([1, 1, 2, 3, 4], pa.int64()),
            "event": times(HOUR, NOW + HOUR, NOW - 1, NOW - HOUR, NOW + 1),
            "created": times(HOUR, HOUR, NOW + 2, None, None),
            "x": pa.array([1.0, 2.0, 3.0, 4.0, 5.0]),
        },
    )
    (report,) = latest.run(view)
    waits = {
        "event time lies in the future": 2,
        "created time lies in the future": 1,
    }
    assert (report.accepted, report.left_out) == (2, waits)
    assert {item.reason: item.rows for item in read_skipped(ProjectState(latest.state))} == waits
    assert latest.online(view, [1]).values["x"].tolist() == [1.0]  # a forecast hides nothing
    (again,) = latest.run(view)
    assert (again.accepted, again.left_out) == (0, waits)
    latest.clock.set(NOW + 2)
    (report,) = latest.run(view)
    assert (report.accepted, report.left_out) == (1, {"declared delay has not passed": 1} | waits_for(1))
    latest.clock.set(NOW + 2 * HOUR)
    (report,) = latest.run(view)
    assert (report.accepted, report.left_out) == (2, {})
    assert read_skipped(ProjectState(latest.state)) == []
    read = latest.online(view, [1], [2], [3], [4])
    assert read.values["x"].tolist() == [2.0, 3.0, 4.0, 5.0]
    assert same(read, latest.offline(view, [1], [2], [3], [4]))


def waits_for(rows: int) -> dict[str, int]:
    return {"event time lies in the future": rows}


@pytest.mark.parametrize(
    ("n", "created", "lost"),
    [(2.5, 1, "does not fit"), (2.0**63, 1, "does not fit"), (1.0, NOW + 1, "created time lies in the future")],
)
def test_2_5_strict_refuses_what_would_be_left_out(latest: LatestRedisWorld, n: float, created: int, lost: str) -> None:
    view = make_view(features={"n": DType.INT64})

    def write(value: float, written: int) -> None:
        columns = {"id": [1, 2, 3], "event": times(1, 1, NOW + HOUR), "created": times(1, written, 1)}
        latest.write("v.parquet", {**columns, "n": pa.array([7.0, value, 1.0], pa.float64())})

    write(n, created)
    for _ in range(2):
        with pytest.raises(GateError, match=f"would be skipped .*1 x .*{lost}"):
            latest.run(view, strict=True)
        assert latest.online(view, [1], [2]).has_row.tolist() == [False, False]
        assert [
            (item.rows, lost in item.reason) for item in read_skipped(ProjectState(latest.state)) if lost in item.reason
        ]
    write(2.0, 1)
    (report,) = latest.run(view, strict=True)
    assert (report.accepted, report.left_out) == (2, waits_for(1))  # its time has not come: nothing is lost


def publish(latest: LatestRedisWorld, *rows: tuple[int, int, int, float]) -> Path:
    """Write rows of key, event time, created time (both in hours) and value."""
    key, event, created, value = zip(*rows, strict=True)
    at = {"event": times(*(hour * HOUR for hour in event)), "created": times(*(hour * HOUR for hour in created))}
    return latest.write("v.parquet", {"id": pa.array(key, pa.int64()), **at, "x": pa.array(value, pa.float64())})
