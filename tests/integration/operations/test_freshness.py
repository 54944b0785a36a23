"""Freshness: a view whose newest event is older than its tag allows is late until something new comes."""

from __future__ import annotations

import pytest

from skewless.contract.errors import RequestError
from skewless.infra.models.verdicts.last_verdicts import Freshness, read_last
from skewless.infra.platform.alerts.alerts import open_alerts
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.health.freshness import ALERT, check_freshness
from tests.worlds.trained import Sandbox, later_rows

DAY = 86_400


def late(place: Sandbox) -> set[str]:
    return {item.subject for item in open_alerts(ProjectState(place.state)) if item.name == ALERT}


def test_a_view_that_nothing_new_comes_for_is_late_until_it_does(place: Sandbox) -> None:
    limits = {view.name: view.freshness_us for view in place.project.applied.plan.views}
    assert limits == {"card_days": 2 * DAY * 1_000_000, "shop_risk": 0}
    place.wait(10 * DAY)
    found = {item.view: item for item in check_freshness(place.project)}
    assert [found["card_days"].is_late, found["shop_risk"].is_late] == [True, False]
    sampled = found["card_days"].sampled
    assert found["card_days"].stale == sampled
    assert sampled is not None
    assert sampled >= 180  # a tenth of the sample may be chosen twice
    assert (found["shop_risk"].sampled, found["shop_risk"].stale) == (40, 0)
    assert late(place) == {"card_days"}
    place.publish(later_rows(place, 50))
    place.wait(1)
    place.project.materialize(check=False)
    (item,) = check_freshness(place.project, ["card_days"])
    assert not item.is_late
    assert item.stale is not None
    assert 0 < item.stale < sampled
    assert late(place) == set()
    assert read_last(ProjectState(place.state), Freshness).keys() == {"card_days", "shop_risk"}


def test_what_was_found_is_what_the_source_says(place: Sandbox) -> None:
    for item in check_freshness(place.project):
        column = place.project.connection.sql(
            f"SELECT epoch_us(max(event_time)) FROM '{place.repo}/data/{item.view}.parquet'"
        ).fetchall()
        assert item.newest_us == column[0][0]


def test_an_unknown_view_is_refused(place: Sandbox) -> None:
    with pytest.raises(RequestError, match="card_days"):
        check_freshness(place.project, ["nothing"])
