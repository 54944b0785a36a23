"""Predictions by id and the latest ones, in a log of several segments."""

from __future__ import annotations

import pytest

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import RequestError
from skewless.infra.records.predictions import ids
from skewless.infra.records.predictions.search import (
    PredictionList,
    find_near,
    find_prediction,
    latest_segments,
    list_predictions,
)
from skewless.infra.records.predictions.segments import compact_predictions
from tests.worlds.trained import FIRST_CARD, MODEL, Sandbox, ask

DAY_S = 86_400
CARD = Column(name="card_id", dtype=DType.INT64)


def made(place: Sandbox, segments: int, rows: int = 3) -> list[str]:
    """Make predictions, each call a segment and a second later; return their ids, the latest first."""
    names: list[str] = []
    for _ in range(segments):
        names += place.predict(ask(rows)).ids
        place.wait(1)
    return names[::-1]


def listed(place: Sandbox, **options: object) -> PredictionList:
    return list_predictions(place.project.state, place.project.connection, **options)  # type: ignore[arg-type]


def pages(place: Sandbox, **options: object) -> list[str]:
    """Return the ids of all pages."""
    names, page = list[str](), None
    while True:
        found = listed(place, page=page, **options)
        names += [row.id for row in found.rows]
        page = found.next_page
        if page is None:
            return names


def test_pages_have_each_prediction_once_although_the_log_grows(place: Sandbox) -> None:
    names = made(place, 12)
    first = listed(place, most=4)
    assert [row.id for row in first.rows] == sorted(names[:4], key=lambda name: (name[:11], name), reverse=True)
    made(place, 2)
    rest, page = list[str](), first.next_page
    while page is not None:
        found = listed(place, most=4, page=page)
        rest += [row.id for row in found.rows]
        page = found.next_page
    assert sorted([*(row.id for row in first.rows), *rest]) == sorted(names)


def test_a_list_reads_a_bounded_part_and_says_so(place: Sandbox) -> None:
    names = made(place, 30)
    found = listed(place, models={"other"}, most_segments=10, most_rows=100)
    assert (found.rows, found.looked, found.total) == ([], 30, 90)
    assert found.next_page is not None
    assert sorted(pages(place, most_rows=7, most=50)) == sorted(names)
    assert sorted(pages(place, models={MODEL}, most_segments=3)) == sorted(names)
    with pytest.raises(RequestError, match="is not a place in the list"):
        listed(place, page='[1, "2"]')


def test_an_entity_has_its_predictions_however_its_key_was_written(place: Sandbox) -> None:
    row = ask(1)[0]
    written = [row, row | {"card_id": str(FIRST_CARD)}, row | {"card_id": FIRST_CARD + 1}]
    own = [place.predict([each]).ids[0] for each in written][:2]
    keys = [(CARD, FIRST_CARD)]
    assert sorted(pages(place, keys=keys)) == sorted(own)
    shop = (Column(name="shop_id", dtype=DType.STRING), row["shop_id"])
    assert sorted(pages(place, keys=[*keys, shop])) == sorted(own)
    assert pages(place, keys=[(shop[0], "other")]) == []


def test_a_prediction_is_found_by_its_id(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    names = made(place, 24, 1)
    state, connection = place.project.state, place.project.connection
    for name in names:
        found = find_prediction(state, connection, name, most_rows=0)
        assert found.entry is not None
        assert found.entry.logged.ids == [name]
        assert (found.looked, found.total) == (0, 24)
    place.wait(2 * DAY_S)
    assert compact_predictions(state, place.now_us()) == 24
    assert find_prediction(state, connection, names[12]).entry is not None
    missing = find_prediction(state, connection, names[0][:-1] + "fff")
    assert (missing.entry, missing.looked) == (None, 24)
    # As an id of an earlier release.
    monkeypatch.setattr(ids.PredictionIds, "take", lambda _self, _t, n: [f"529985b27312-{i}" for i in range(n)])
    place.predict(ask(2))
    old = find_prediction(state, connection, "529985b27312-1", most_rows=1)
    assert old.entry is not None
    assert old.looked == 2
    assert find_prediction(state, connection, "529985b27312-9", most_rows=10, most_segments=1).looked == 2


def test_segments_are_found_by_time_and_from_the_end(place: Sandbox) -> None:
    made(place, 10, 2)
    database = place.project.state.database
    log = latest_segments(database, most_rows=1_000, most=100)
    assert [segment.first for segment in log] == list(range(18, -1, -2))
    assert latest_segments(database, most_rows=5, most=100) == log[:2]
    assert latest_segments(database, most_rows=1, most=100, end=4) == [log[-2]]
    times = [segment.at_us for segment in log[::-1]]
    found = find_near(database, times[4], times[5], beyond=2, most=10)
    assert sorted(segment.at_us for segment in found) == times[2:8]
    assert len(find_near(database, times[0], times[9], beyond=2, most=3)) == 3
