"""Online features in process: what a server's model would see, and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skewless.contract.errors import DefinitionError, RequestError, StoreError
from skewless.contract.keys import marker_key
from skewless.contract.status import Status
from skewless.project import Project
from tests.worlds.trained import FIRST_CARD, NOW, Sandbox, ask, opened_copy

SERVICE = "fraud_features"
COLUMNS: dict[str, list[Any]] = {
    "card_id": [FIRST_CARD, str(FIRST_CARD + 1), None, -5],
    "shop_id": ["shop-00", "nowhere", None, "shop-01"],
    "amount": [1.5, None, 3.0, 4.0],
    "paid_at": [NOW] * 4,
}


@pytest.fixture(scope="module")
def place(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with opened_copy(trained, tmp_path_factory.mktemp("features") / "p") as place:
        yield place


def vocabularies(place: Sandbox) -> dict[str, list[str]]:
    words: dict[str, list[str]] = place.model.package.plan["vocabularies"]
    return words


def test_the_matrix_is_what_a_served_model_sees(place: Sandbox) -> None:
    rows = ask(60)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    online = place.project.online_features(SERVICE, columns, vocabularies=vocabularies(place))
    served = place.predict(rows)
    assert online.labels == place.model.assembler.labels
    assert online.matrix.tobytes() == served.matrix.tobytes()
    for i, view in enumerate(place.model.plan.all_views):
        assert online.status[view.name].tolist() == served.status[:, i].tolist()


def test_each_row_has_a_status_and_an_age(place: Sandbox) -> None:
    online = place.project.online_features(SERVICE, COLUMNS, vocabularies=vocabularies(place))
    assert [Status(one).name for one in online.status["card_days"]] == ["PRESENT", "PRESENT", "NOT_FOUND", "NOT_FOUND"]
    assert [Status(one).name for one in online.status["shop_risk"]] == ["PRESENT", "NOT_FOUND", "NOT_FOUND", "PRESENT"]
    ages = online.age_us("card_days")
    assert (online.t - ages[:2] == online.reads["card_days"].versions.event_ts[:2]).all()
    assert ages[2:].tolist() == [-1, -1]
    missing = online.matrix[:, online.labels.index("card_days__payments_7d")]
    assert np.isnan(missing).tolist() == [False, False, True, True]


def test_no_entity_gives_no_row(place: Sandbox) -> None:
    empty: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    online = place.project.online_features(SERVICE, empty, vocabularies=vocabularies(place))
    assert online.matrix.shape == (0, len(online.labels))


def test_what_cannot_be_asked_is_refused(place: Sandbox) -> None:
    project = place.project
    with pytest.raises(RequestError, match=r"feature service: is unknown .got 'none'.*fraud_features"):
        project.online_features("none", COLUMNS)
    with pytest.raises(DefinitionError, match="feature 'card_days__country': is text without a vocabulary"):
        project.online_features(SERVICE, COLUMNS)
    with pytest.raises(RequestError, match="the columns: has no field 'shop_id'"):
        project.online_features(SERVICE, {name: values for name, values in COLUMNS.items() if name != "shop_id"})
    with pytest.raises(RequestError, match="the columns: have different lengths"):
        project.online_features(SERVICE, COLUMNS | {"amount": [1.0]})
    with pytest.raises(RequestError, match=r"row 1 key 'card_id': is not an integer .got 1.5"):
        project.online_features(SERVICE, COLUMNS | {"card_id": [1, 1.5, 2, 3]})
    with pytest.raises(RequestError, match="row 0 key 'card_id': does not fit int64"):
        project.online_features(SERVICE, COLUMNS | {"card_id": [2**63, 1, 2, 3]})


def test_a_store_that_is_away_is_named(place: Sandbox) -> None:
    away = Project(place.repo, clock=f"file:{place.repo}/.skewless/clock", redis_url="redis://127.0.0.1:1/0")
    with pytest.raises(StoreError, match=r"127\.0\.0\.1:1"):
        away.online_features(SERVICE, COLUMNS, vocabularies=vocabularies(place))
    away.close()


def test_4_5_a_view_that_has_lost_writes_is_unavailable(place: Sandbox) -> None:
    marker = marker_key(place.project.applied.plan.project, place.view("card_days"))
    seq = place.stored(marker.encode())
    place.redis.delete(marker)
    try:
        online = place.project.online_features(SERVICE, COLUMNS, vocabularies=vocabularies(place))
    finally:
        place.redis.set(marker, seq)
    assert {Status(one).name for one in online.status["card_days"]} == {"UNAVAILABLE"}
    assert Status.UNAVAILABLE not in online.status["shop_risk"].tolist()
    assert np.isnan(online.matrix[:, online.labels.index("card_days__payments_7d")]).all()
