"""Counts by day: sums of what was added, in a document of bounded size, whatever the reasons are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.errors import StoreError
from skewless.infra.log.daily_counts import DAY_US, OTHER, DailyCounts, RowCounts
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState

LOG = "events/payments"
REASONS = st.lists(st.one_of(st.none(), st.sampled_from(["a", "b", "<script>"])), max_size=8)


def refused(reasons: list[str | None], first: int = 0) -> RowCounts:
    counts = RowCounts()
    n = counts.add_refused(pa.chunked_array([pa.array(reasons, pa.string())]), "events/payments/e/0", first)
    counts.accepted = len(reasons) - n
    return counts


@given(st.lists(REASONS, max_size=6))
def test_counts_are_the_sums_of_batches_and_places_are_the_latest(batches: list[list[str | None]]) -> None:
    total, expected, places, first = RowCounts(), Counter[str](), dict[str, list[int]](), 0
    for batch in batches:
        total.add(refused(batch, first))
        for at, reason in enumerate(batch, first):
            if reason is not None:
                expected[reason] += 1
                places.setdefault(reason, []).append(at)
        first += len(batch)
    assert total.refused == expected
    assert total.rejected == expected.total()
    assert total.accepted + total.rejected == first
    assert {reason: [at for _, at in found] for reason, found in total.places.items()} == {
        reason: found[-5:] for reason, found in places.items()
    }
    assert RowCounts.from_dict(json.loads(json.dumps(total.as_dict()))) == total


def test_days_are_kept_apart_and_the_oldest_are_forgotten(tmp_path: Path) -> None:
    daily = DailyCounts(ProjectState(tmp_path).database)
    for day in range(40):
        daily.add(LOG, day * DAY_US + 5, RowCounts(accepted=day + 1))
    daily.add(LOG, 39 * DAY_US + 7, RowCounts(duplicates=3, late=2))
    daily.add(LOG, 99 * DAY_US, RowCounts())
    days = daily.read(LOG)
    assert list(days) == [day * DAY_US for day in range(5, 40)]
    assert days[39 * DAY_US] == RowCounts(accepted=40, duplicates=3, late=2)
    assert daily.read_all() == {LOG: days}
    assert daily.read("events/others") == {}


def test_many_long_reasons_stay_bounded_and_none_is_lost(tmp_path: Path) -> None:
    state = ProjectState(tmp_path)
    for i in range(30):
        DailyCounts(state.database).add(LOG, i, refused([f"{i} " + "x" * 10_000] * (30 - i)))
    counts = DailyCounts(state.database).read(LOG)[0]
    assert counts.rejected == sum(range(1, 31))
    assert OTHER in counts.refused
    assert len(counts.refused) <= 12
    assert len(json.dumps(counts.as_dict())) < 10_000


@pytest.mark.parametrize("body", [{"x": {}}, {"1": {"accepted": 1}}, [1], {"1": 7}])
def test_a_corrupt_document_stops_no_write_and_is_an_error_for_readers(tmp_path: Path, body: object) -> None:
    state = ProjectState(tmp_path)
    Documents(state.database, "daily_counts").put(LOG, body)
    DailyCounts(state.database).add(LOG, DAY_US, RowCounts(accepted=1))
    with pytest.raises(StoreError, match="daily counts"):
        DailyCounts(state.database).read_all()
