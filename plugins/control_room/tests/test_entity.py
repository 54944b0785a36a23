"""The page of an entity: both sides of its values, its predictions, and its erasure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plugins.control_room.tests.shown_pages import NOWHERE, read_empty, show
from skewless.contract.errors import RequestError, SourceError
from skewless.contract.feedback import Outcome
from skewless.infra.log.readers import list_readers
from skewless.infra.reads.offline.labels import label_source
from skewless.infra.records.outcomes.log import OutcomeWriter, outcome_spool
from skewless.operations.data.erasure import erase as erasure
from skewless.project import Project
from skewless_control_room.page import Known, Part, Query, Unknown
from skewless_control_room.pages import entity
from skewless_control_room.pages.entity import PAGE, EntityPage, read_entity_page
from tests.worlds.hostile_text import MARKUP
from tests.worlds.trained import FIRST_CARD, MODEL, Sandbox, ask, later_rows, open_project

CARD = str(FIRST_CARD)
(ERASE,) = entity.ACTIONS


def known(part: Part[Any]) -> Any:  # noqa: ANN401 - of any part
    assert isinstance(part, Known), part
    return part.value


def query_of(**keys: str) -> Query:
    return Query(path={"entity": ",".join(name for name in keys if name.endswith("_id"))}, values=keys)


def page_of(project: Project, **keys: str) -> EntityPage:
    return read_entity_page(project, query_of(**keys))


def shown(project: Project, **keys: str) -> str:
    query = query_of(**keys)
    return show(project, PAGE, f"/entities/{query.path['entity']}", query)


def test_both_sides_have_the_values_of_the_command(place: Sandbox) -> None:
    place.wait(60)
    views = known(page_of(place.project, card_id=CARD).views)
    said = place.project.get("card_days", {"card_id": CARD}, as_of_us=views.at_us).views[0].sides
    (view,) = views.views
    assert (view.view, view.is_windowed, view.is_different, views.total) == ("card_days", False, False, 1)
    assert known(view.logged) == said["knowledge"]
    assert known(view.online).features == said["online"].features
    assert {item.feature: item.online for item in view.features} == said["online"].features
    both = known(page_of(place.project, card_id=CARD, shop_id="shop-00").views)
    assert [item.view for item in both.views] == ["card_days", "shop_risk"]
    assert "equal" in shown(place.project, card_id=CARD)


def test_a_value_that_differs_is_marked(place: Sandbox) -> None:
    place.wait(60)
    place.flip("card_days", place.key("card_days", FIRST_CARD), feature=1, bit=0)
    (view,) = known(page_of(place.project, card_id=CARD).views).views
    assert view.is_different
    assert [item.feature for item in view.features if item.is_different] == ["mean_amount_7d"]
    assert "online and log differ" in shown(place.project, card_id=CARD)


def test_a_lost_row_is_found_in_the_log_alone(place: Sandbox) -> None:
    place.wait(60)
    place.redis.delete(place.key("card_days", FIRST_CARD))
    (view,) = known(page_of(place.project, card_id=CARD).views).views
    assert (known(view.online).status, known(view.logged).status) == ("NOT_FOUND", "PRESENT")
    assert view.is_different


def test_predictions_of_the_entity_have_their_outcomes(place: Sandbox) -> None:
    place.wait(60)
    first = place.predict(ask(3)).ids[0]
    place.wait(3_600)
    second = place.predict([ask(1)[0] | {"card_id": CARD}]).ids[0]
    said = Outcome(prediction_id=first, label=1.0, value=None, known_at=place.now_us())
    writer = OutcomeWriter(outcome_spool(place.project.state))
    writer.append([said], received_at=place.now_us(), source="http")
    found = known(page_of(place.project, card_id=CARD).predictions)
    assert [item.prediction.id for item in found.rows] == [second, first]
    assert [item.outcome and item.outcome.label for item in found.rows] == [None, 1.0]
    assert (found.outcomes, found.found.next_page, found.found.looked) == ("", None, 4)
    assert known(page_of(place.project, card_id="5").predictions).rows == []
    html = shown(place.project, card_id=CARD)
    assert f"/predictions/{first}" in html
    assert "not known yet" in html


def test_what_cannot_be_read_is_unknown_alone(place: Sandbox) -> None:
    place.wait(60)
    place.predict(ask(1))
    with open_project(place.repo, redis_url=NOWHERE["store"]) as project:
        found = page_of(project, card_id=CARD)
        (view,) = known(found.views).views
        assert isinstance(view.online, Unknown)
        assert (known(view.logged).status, view.is_different) == ("PRESENT", None)
        assert len(known(found.predictions).rows) == 1
        html = shown(project, card_id=CARD)
        assert "not compared" in html
        assert "Not known: <bdi>online store" in html
    (place.repo / label_source(place.project.applied.model(MODEL)).path).unlink()
    found = page_of(place.project, card_id=CARD)
    assert "label table" in known(found.predictions).outcomes
    for file in (place.state / "log" / "batch").glob("card_days-*/*.parquet"):
        file.unlink()
    (view,) = known(page_of(place.project, card_id=CARD).views).views
    assert isinstance(view.logged, Unknown)
    assert known(view.online).status == "PRESENT"
    with open_project(place.repo, database_url=NOWHERE["database"]) as project:
        found = page_of(project, card_id=CARD)
        assert isinstance(found.views, Unknown)
        assert isinstance(found.predictions, Unknown)
        shown(project, card_id=CARD)


def test_an_empty_project_says_that_it_has_no_such_key(tmp_path: Path) -> None:
    with read_empty(tmp_path / "p") as project:
        assert isinstance(page_of(project, card_id=CARD).views, Unknown)
        shown(project, card_id=CARD)


@pytest.mark.parametrize("texts", [["".join(MARKUP)], pytest.param(MARKUP, marks=pytest.mark.soak)])
def test_hostile_keys_stay_text(place: Sandbox, texts: list[str]) -> None:
    place.wait(60)
    for text in (*texts, "x" * 900, "\n\r\t", "\u202e"):
        found = page_of(place.project, shop_id=text)
        assert known(found.views).views[0].view == "shop_risk"
        html = shown(place.project, shop_id=text)
        assert "\u202e</bdi>" not in html
        assert isinstance(page_of(place.project, card_id=text).views, Unknown)  # not a number
    with pytest.raises(RequestError, match="is too long"):
        page_of(place.project, shop_id="x" * 1_001)
    with pytest.raises(RequestError, match="has no value"):
        read_entity_page(place.project, Query(path={"entity": "shop_id"}))
    assert isinstance(page_of(place.project, other_id="1").views, Unknown)


def test_an_entity_is_erased_after_its_dry_run(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    place.wait(60)
    place.publish(later_rows(place, 2))
    place.project.materialize(check=False)
    place.predict(ask(2))
    found = page_of(place.project, card_id=CARD)
    values = {"entity": found.text, "key": found.key_text, "options": found.erase_options}
    with pytest.raises(RequestError, match="does not have the key that you confirm"):
        ERASE.preview(place.project, values | {"key": "other"})
    with pytest.raises(RequestError, match="has no keys"):
        ERASE.run(place.project, values | {"entity": "[]"})
    path = place.repo / "data/card_days.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.filter(pa.array([card != FIRST_CARD for card in rows["card_id"].to_pylist()])), path)
    said = ERASE.preview(place.project, values)
    assert any("1 prediction and 0 outcomes are removed" in line for line in said)
    assert known(page_of(place.project, card_id=CARD).predictions).rows
    monkeypatch.setattr(erasure, "complete_backfills", refuse)
    done = ERASE.run(place.project, values)
    assert "1 prediction" in done
    assert "salt" in done
    assert done.endswith("A later run failed: source 'x': is missing. Fix: restore it")
    after = page_of(place.project, card_id=CARD)
    assert known(after.predictions).rows == []
    (view,) = known(after.views).views
    assert (known(view.online).status, known(view.logged).status) == ("NOT_FOUND", "NOT_FOUND")
    assert ERASE.command.format(**values) == f"skewless erase --entity card_id={CARD} --yes"


def refuse(*_: object) -> None:
    raise SourceError("source 'x'", "is missing", fix="restore it")


def test_pages_do_not_keep_erased_files(place: Sandbox, open_pages: Any) -> None:  # noqa: ANN401 - of the fixture
    """A control room runs for months: as a reader of the log it would keep every file that is erased meanwhile."""
    place.wait(60)
    name = place.predict(ask(1)).ids[0]
    pages = open_pages(place.repo)
    before = {*list_readers(place.project.state.database)}
    for path in ("/predictions", f"/predictions/{name}", f"/entities/card_id?{urlencode({'card_id': CARD})}"):
        reply = pages.get(path)
        assert reply.status == 200, reply.text
    assert {*list_readers(place.project.state.database)} <= before


def test_the_json_has_both_sides(place: Sandbox, open_pages: Any) -> None:  # noqa: ANN401 - of the fixture
    place.wait(60)
    reply = open_pages(place.repo).get(f"/entities/card_id.json?card_id={CARD}")
    (view,) = reply.body["views"]["value"]["views"]
    assert view["online"]["value"]["features"] == view["logged"]["value"]["features"]
    assert json.loads(reply.body["text"]) == {"card_id": CARD}
