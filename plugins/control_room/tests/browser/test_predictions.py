"""A newcomer asks why a prediction came out so, what is known of a card, and erases it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect

from plugins.control_room.tests.browser.room import running_room
from tests.browser.visitor import NARROW, WIDE, Scheme, Visitor, accessibility_problems, is_wider_than_window


def first_prediction(repo: Path) -> tuple[str, str]:
    """Return id and card of a prediction."""
    rows = pq.read_table(repo / "scored.parquet")
    return str(rows["id"][0]), str(rows["card_id"][0])


def test_a_newcomer_finds_why_a_prediction_came_out_so(visitor: Visitor, room_url: str, fraud_project: Path) -> None:
    name, card = first_prediction(fraud_project)
    with visitor.visit(room_url + "/predictions") as page:
        page.get_by_label("Model").select_option("fraud")
        page.get_by_role("button", name="Show").click()
        page.get_by_role("link", name="Look further back").click()
        expect(page.get_by_text("Looked through 500 of about 500 predictions")).to_be_visible()
        page.locator("#q").fill(name)
        page.get_by_role("button", name="Find").click()
        page.locator("main").get_by_role("link", name=name).first.click()
        expect(page.get_by_role("heading", name="Why did this come out so?")).to_be_visible()
        expect(page.get_by_text("Proven: vector and score are equal, bit for bit.")).to_be_visible()
        values = page.get_by_role("region", name="The values that the model read")
        expect(values.get_by_role("row", name="shop_risk__refund_share")).to_contain_text("position")
        expect(page.get_by_role("img", name="Contribution of each feature to the margin")).to_be_visible()
        expect(page.get_by_role("heading", name="Nearest of all")).to_be_visible()
        page.get_by_role("link", name=card, exact=True).click()
        expect(page.get_by_role("heading", name="What do we know of this card_id?")).to_be_visible()
        expect(page.locator("#views .state.good").first).to_be_visible()
        page.get_by_role("region", name="Last predictions").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", name="Why did this come out so?")).to_be_visible()


@pytest.mark.parametrize(("scheme", "width"), [("light", WIDE), ("dark", NARROW)])
def test_pages_with_a_name_are_readable(
    visitor: Visitor, room_url: str, fraud_project: Path, scheme: Scheme, width: int
) -> None:
    name, card = first_prediction(fraud_project)
    for path in (
        f"/predictions/{name}",
        "/predictions/529985b27312-1",
        f"/entities/card_id?card_id={card}",
        f"/entities/card_id,shop_id?card_id={card}&shop_id=%3Cscript%3Ealert(1)%3C/script%3E%E2%80%AE",
    ):
        with visitor.visit(room_url + path, scheme=scheme, width=width) as page:
            assert page.locator("h1").count() == 1
            assert not accessibility_problems(page)
            assert not is_wider_than_window(page)


@pytest.fixture
def room_of_copy(fraud_project: Path, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A copy of the project that a test changes, and its control room."""
    repo = tmp_path / "fraud"
    shutil.copytree(fraud_project, repo, ignore=shutil.ignore_patterns("redis"))
    with running_room(repo, SKEWLESS_THREADS="1") as url:
        yield url, repo


def test_an_entity_is_erased_only_after_its_key_was_typed(visitor: Visitor, room_of_copy: tuple[str, Path]) -> None:
    url, repo = room_of_copy
    _, card = first_prediction(repo)
    for source in ("card_days", "payments"):  # first in the sources, as the page on erasure says
        path = repo / f"data/{source}.parquet"
        rows = pq.read_table(path)
        kept = pa.array([str(each) != card for each in rows["card_id"].to_pylist()])
        pq.write_table(rows.filter(kept), path)
    with visitor.visit(f"{url}/entities/card_id?card_id={card}", script=False) as page:
        page.get_by_role("button", name="Erase this entity").click()
        expect(page.get_by_text("It cannot be undone.")).to_be_visible()
        expect(page.get_by_text(f"skewless erase --entity card_id={card} --yes")).to_be_visible()
        page.get_by_role("textbox", name="confirm").fill("another")
        page.get_by_role("button", name="Erase this entity").click()
        expect(page.get_by_text("is not confirmed")).to_be_visible()
        page.go_back()
        page.get_by_role("textbox", name="confirm").fill(card)
        page.get_by_role("button", name="Erase this entity").click()
        expect(page.get_by_text("Erased:")).to_be_visible(timeout=60_000)
        expect(page.get_by_text("The log has no prediction of this entity.")).to_be_visible()
