"""The pages of views: what they say, and that they say what they do not know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from plugins.control_room.tests.shown_pages import NOWHERE, read_empty, show
from skewless.contract.errors import RequestError
from skewless.infra.definitions.plans.applied_plan import hold_apply, save_applied
from skewless.infra.log.daily_counts import DAY_US, DailyCounts, RowCounts
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.operations.models.drift import check_drift
from skewless.project import Project
from skewless_control_room.page import Known, Part, Query, Unknown
from skewless_control_room.pages.views import PAGE, VIEW_PAGE, ViewAnswer, read_view, read_views
from tests.worlds.hostile_text import MARKUP
from tests.worlds.plans import make_view
from tests.worlds.trained import SECOND, Sandbox, ask, copy_project, later_rows, open_project

CARD_DAYS = Query(path={"view": "card_days"})
PARTS = ("age", "store", "delay", "days", "drift", "parity", "readers", "definition", "history")


def known(part: Part[Any]) -> Any:  # noqa: ANN401 - of any part
    assert isinstance(part, Known), part
    return part.value


def view_of(project: Project, name: str = "card_days", **values: str) -> ViewAnswer:
    return read_view(project, Query(path={"view": name}, values=values))


def test_freshness_is_unknown_until_it_is_checked_and_then_that_of_the_check(place: Sandbox) -> None:
    names = {item.view: item.age.state for item in known(read_views(place.project, Query()).views).shown}
    assert names == {"card_days": "unknown", "shop_risk": "unknown"}
    place.wait(60)
    place.publish(later_rows(place, 30))
    place.project.materialize(check=False)
    place.project.freshness()
    found = known(read_views(place.project, Query()).views)
    assert [(item.view, item.age.state) for item in found.shown] == [("card_days", "fresh"), ("shop_risk", "no limit")]
    assert found.problem is None
    age = known(view_of(place.project).age)
    assert 0 <= place.now_us() - age.watermark_us < 60 * SECOND
    place.wait(2 * 3_600)
    age = known(view_of(place.project).age)
    assert (age.state, age.why) == ("unknown", "was last checked 2 h ago")
    place.wait(3 * 86_400)
    age = known(view_of(place.project).age)
    assert age.state == "late"  # by its watermark alone, whenever the last check was
    assert "was not updated for 3 d 2 h, the limit is 2 d" in show(
        place.project, VIEW_PAGE, "/views/card_days", CARD_DAYS
    )


def test_a_view_says_what_came_what_reads_it_and_how_late_it_is(place: Sandbox) -> None:
    place.wait(60)
    place.publish(later_rows(place, 30))
    place.wait(5)
    place.project.materialize(check=False)
    place.predict(ask(40))
    check_drift(place.project, "fraud")
    place.project.parity()
    shown = view_of(place.project)
    log = place.project.views.log(place.view("card_days")).next_seq()
    store = known(shown.store)
    assert (store.lag, store.log_rows, store.needed_by) == (0, log, ["plan", "fraud 000001"])
    delay = known(shown.delay)
    assert delay.declared_s == 0.0
    assert 5.0 <= delay.p50_s < 60.0
    assert sum(day.accepted for day in known(shown.days).days) == log
    (reader,) = known(shown.readers)
    assert (reader.service, reader.models, reader.features) == ("fraud_features", ["fraud"], 3)
    (drift,) = known(shown.drift)
    assert (drift.verdict, [item.feature for item in drift.features]) == (
        "too_few_rows",
        ["payments_7d", "mean_amount_7d", "country"],
    )
    mean = next(item for item in drift.distributions if item.feature == "mean_amount_7d")
    assert len(mean.trained) == len(mean.now) > 1
    assert sum(mean.now) == pytest.approx(1 - drift.features[1].nulls_now - drift.features[1].new, abs=1e-4)
    assert sum(mean.trained) == pytest.approx(1 - drift.features[1].nulls_trained, abs=1e-4)
    parity = known(shown.parity)
    assert parity.compared > 0
    assert parity.mismatches == 0
    assert show(place.project, VIEW_PAGE, "/views/card_days", CARD_DAYS)


def test_a_viewer_of_one_model_sees_no_other(place: Sandbox) -> None:
    check_drift(place.project, "fraud")
    query = Query(path={"view": "card_days"}, models=frozenset({"other"}))
    shown = read_view(place.project, query)
    assert [reader.models for reader in known(shown.readers)] == [[]]
    assert known(shown.drift) == []
    assert "/models/fraud" not in show(place.project, VIEW_PAGE, "/views/card_days", query)


def test_an_unknown_view_has_no_page(place: Sandbox) -> None:
    for name in ("nowhere", *MARKUP, "card_days@12345678"):
        with pytest.raises(RequestError, match="view: is unknown"):
            view_of(place.project, name)


def test_an_empty_project_says_that_it_has_no_plan(tmp_path: Path) -> None:
    with read_empty(tmp_path / "p") as project:
        assert read_views(project, Query()).views == Unknown(
            unknown="project: has no applied plan", fix="run `skewless apply`"
        )
        shown = view_of(project, "any")
        assert all(isinstance(getattr(shown, name), Unknown) for name in PARTS[:-1])
        assert show(project, PAGE, "/views").count("Not known") == 1
        assert show(project, VIEW_PAGE, "/views/any", Query(path={"view": "any"})).count("Not known") == len(PARTS) - 1


@pytest.fixture
def repo(trained: Path, tmp_path: Path) -> Path:
    """A copy whose online store does not run."""
    return copy_project(trained, tmp_path / "p")


def test_without_the_online_store_the_rest_is_known_and_nothing_is_started(repo: Path) -> None:
    for settings in ({}, {"redis_url": NOWHERE["store"]}):
        with open_project(repo, **settings) as project:
            found = known(read_views(project, Query()).views)
            assert found.problem is not None
            assert {item.age.state for item in found.shown} == {"unknown"}
            shown = view_of(project)
            assert known(shown.store).lag is None
            assert "its position is unknown" in show(project, VIEW_PAGE, "/views/card_days", CARD_DAYS)
        assert not list((repo / ".skewless").glob("redis/*.sock"))


def test_without_the_database_each_part_says_so(repo: Path) -> None:
    with open_project(repo, database_url=NOWHERE["database"]) as project:
        assert isinstance(read_views(project, Query()).views, Unknown)
        shown = view_of(project)
        assert all(isinstance(getattr(shown, name), Unknown) for name in PARTS)
        assert show(project, VIEW_PAGE, "/views/card_days", CARD_DAYS).count("Not known") == len(PARTS)


def test_a_corrupt_part_spoils_no_other(repo: Path) -> None:
    with open_project(repo) as project:
        log = project.applied.plan.view("card_days").partition
        Documents(project.state.database, "daily_counts").put(log, {"x": 1})
        Records(project.state.database, "drift_check").add("fraud", {"features": [{}]})
        shown = view_of(project)
        lost = {name for name in PARTS if isinstance(getattr(shown, name), Unknown)}
        assert lost == {"days", "drift"}


def apply(project: Project, number: int, **changes: Any) -> None:  # noqa: ANN401 - fields of a view
    applied = project.applied
    views = tuple(replace(view, **changes) if view.name == "card_days" else view for view in applied.plan.views)
    with hold_apply(project.state) as lease:
        save_applied(project.state, replace(applied, plan=replace(applied.plan, views=views)), number, lease)
    project.refresh()


def test_the_history_of_a_definition_has_its_changes_and_pages(repo: Path) -> None:
    with open_project(repo) as project:
        apply(project, 2, ttl_us=DAY_US)
        for number in range(3, 14):
            apply(project, number, freshness_us=number * DAY_US)
        history = known(view_of(project).history)
        assert [(change.plan, change.action) for change in history.changes] == [
            (number, "changed") for number in range(13, 3, -1)
        ]
        assert {'-  "freshness_us": 1036800000000,', '+  "freshness_us": 1123200000000,'} <= {*history.changes[0].diff}
        earlier = known(view_of(project, before=str(history.before)).history)
        assert [(change.plan, change.action) for change in earlier.changes] == [
            (3, "changed"),
            (2, "changed"),
            (1, "added"),
        ]
        assert earlier.before is None


def test_many_views_are_shown_in_pages_of_bounded_size(repo: Path) -> None:
    views = tuple(make_view(f"v{i:03}", path=MARKUP[i % len(MARKUP)]) for i in range(201))
    with open_project(repo) as project:
        applied = project.applied
        with hold_apply(project.state) as lease:
            plan = replace(applied.plan, views=views, services=(), transforms=(), request=())
            save_applied(project.state, replace(applied, plan=plan, models=()), 2, lease)
        project.refresh()
        found = known(read_views(project, Query()).views)
        assert (len(found.shown), found.next) == (200, found.shown[-1].view)
        assert show(project, PAGE, "/views")
        rest = known(read_views(project, Query(values={"after": found.next})).views)
        names = [item.view for item in (*found.shown, *rest.shown)]
        assert names == sorted(names)
        assert len(names) == found.total
        assert show(project, VIEW_PAGE, "/views/v000", Query(path={"view": "v000"}))


def test_days_without_rows_are_zero(repo: Path) -> None:
    with open_project(repo) as project:
        daily, log = DailyCounts(project.state.database), project.applied.plan.view("shop_risk").partition
        Documents(project.state.database, "daily_counts").delete(log)
        for day in (1, 4, 90):
            daily.add(log, day * DAY_US + SECOND, RowCounts(accepted=day))
        days = known(view_of(project, "shop_risk").days).days
        assert [(day.day_us // DAY_US, day.accepted) for day in days] == [(1, 1), (2, 0), (3, 0), (4, 4), (90, 90)]


def test_times_of_events_before_the_epoch_do_no_harm(place: Sandbox) -> None:
    old = later_rows(place, 1).drop_columns(["event_time"])
    place.publish(old.append_column("event_time", pa.array([-1], pa.int64()).cast(pa.timestamp("us", tz="UTC"))))
    place.project.materialize(check=False)
    assert show(place.project, VIEW_PAGE, "/views/card_days", CARD_DAYS)
