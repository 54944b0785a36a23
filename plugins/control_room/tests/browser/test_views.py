"""A newcomer finds what a view feeds and whether it is fresh, and a view's page in each look."""

from __future__ import annotations

import json
from urllib.request import urlopen

from tests.browser.visitor import Visitor


def test_from_the_list_of_views_to_what_one_feeds(visitor: Visitor, room_url: str) -> None:
    with visitor.visit(room_url) as page:
        page.get_by_role("link", name="Views").click()
        assert page.locator("h1").inner_text() == "Which views are there, and are they fresh?"
        names = page.locator("tbody th a").all_inner_texts()
        assert names == ["card_days", "card_now", "shop_now", "shop_risk"]
        page.get_by_role("link", name="card_now").click()
        assert page.locator("h1").inner_text() == "Which models does view card_now feed, and is it fresh?"
        assert "fresh" in page.locator("#fresh .state").first.inner_text()
        assert "equal" in page.locator("#parity .state").inner_text()
        assert "fraud_features" in page.locator("#readers li").inner_text()
        assert "count of card_id over 1 h" in page.locator("#definition").inner_text()
        assert "skewless parity card_now" in page.locator("#parity code").inner_text()
        page.get_by_text("The added definition").click()
        assert '"name": "card_now"' in page.locator("#history pre").inner_text()
        assert page.locator("#readers").get_by_role("link", name="fraud").get_attribute("href") == "/models/fraud"


def test_the_page_of_a_view_as_json_has_the_numbers_of_the_command(room_url: str) -> None:
    with urlopen(f"{room_url}/views/card_days.json") as reply:  # noqa: S310 - our server
        body = json.load(reply)
    assert body["store"]["value"]["log_rows"] == 24_000
    assert body["store"]["value"]["lag"] in {0, None}  # None: the private online store has stopped
    assert sum(day["accepted"] for day in body["days"]["value"]["days"]) == 24_000


def test_an_unknown_view_has_a_page_that_says_so(visitor: Visitor, room_url: str) -> None:
    with visitor.visit(f"{room_url}/views/%3Cscript%3Ealert(1)") as page:
        assert "is unknown" in page.locator("main").inner_text()
    with visitor.visit(f"{room_url}/views/nowhere") as page:
        assert "view: is unknown" in page.locator("main").inner_text()
        assert "nowhere" in page.locator("main code").first.inner_text()
