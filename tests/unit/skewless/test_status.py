"""SEMANTICS 2.1, 2.4, 2.5: one expression says what became of a row."""

from __future__ import annotations

import numpy as np
import pytest

from skewless.contract.status import Status, count_statuses, row_status

T = 1_000_000
TTL = 100


def status_of(*, found: bool = True, event_ts: int, ttl_us: int = TTL) -> Status:
    return Status(row_status(np.array([found]), np.array([event_ts], dtype=np.int64), T, ttl_us)[0])


@pytest.mark.parametrize(
    ("event_ts", "status"),
    [
        (T, Status.PRESENT),
        (T - TTL + 1, Status.PRESENT),
        (T - TTL, Status.PRESENT),
        (T - TTL - 1, Status.EXPIRED),
        (T + 1, Status.FUTURE),
        (-T, Status.EXPIRED),
    ],
)
def test_2_1_ttl_is_inclusive(event_ts: int, status: Status) -> None:
    assert status_of(event_ts=event_ts) is status


@pytest.mark.parametrize("event_ts", [T, 0, -(2**62)])
def test_2_1_ttl_of_zero_is_no_limit(event_ts: int) -> None:
    assert status_of(event_ts=event_ts, ttl_us=0) is Status.PRESENT


@pytest.mark.parametrize("event_ts", [-(2**63), 0, T, T + 1])
@pytest.mark.parametrize("ttl_us", [0, TTL])
def test_2_5_what_was_not_found_is_nothing_else(event_ts: int, ttl_us: int) -> None:
    assert status_of(found=False, event_ts=event_ts, ttl_us=ttl_us) is Status.NOT_FOUND


def test_2_5_each_row_is_judged_at_its_own_time() -> None:
    found = np.ones(3, dtype=np.bool_)
    status = row_status(found, np.full(3, 50, dtype=np.int64), np.array([49, 150, 151]), TTL)
    assert [Status(one) for one in status] == [Status.FUTURE, Status.PRESENT, Status.EXPIRED]


def test_counts_name_what_occurs() -> None:
    assert count_statuses(np.array([5, 0, 5, 2], dtype=np.uint8)) == {"PRESENT": 1, "NOT_FOUND": 1, "UNAVAILABLE": 2}
    assert count_statuses(np.array([], dtype=np.uint8)) == {}
