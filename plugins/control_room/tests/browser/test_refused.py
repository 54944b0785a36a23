"""A newcomer finds a rejected batch and its expectation, corrects the source, and has its rows accepted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Page

from plugins.control_room.tests.browser.room import running_room
from tests.browser.visitor import NARROW, Visitor, accessibility_problems, is_wider_than_window
from tests.worlds.command_line import done, run
from tests.worlds.hostile_text import MARKUP
from tests.worlds.trained import copy_project


@pytest.fixture
def repo(fraud_project: Path, tmp_path: Path) -> Path:
    """A copy in which a row breaks an expectation, and rows and an event have no key."""
    repo = copy_project(fraud_project, tmp_path / "fraud")
    spoil(repo / "data/shop_risk.parquet", refund_share=2.0, shop_id=MARKUP[0])
    spoil(repo / "data/card_days.parquet", card_id=None, country=MARKUP[1])
    assert run("materialize", "--repo", repo).code == 5
    done("stream", "--replay", repo / "data/stream.parquet", "--until-idle", "--repo", repo)
    return repo


@pytest.fixture
def url(repo: Path) -> Iterator[str]:
    """Its control room."""
    with running_room(repo) as url:
        yield url


def spoil(path: Path, **values: object) -> None:
    """Add a row of the source again, with other values."""
    rows = pq.read_table(path)
    row = rows.slice(rows.num_rows - 1, 1).to_pylist()[0] | values
    pq.write_table(pa.concat_tables([rows, pa.Table.from_pylist([row], rows.schema)]), path)


def texts(page: Page, part: str) -> str:
    return page.locator(f"#{part}").inner_text()


def test_a_rejected_batch_is_found_corrected_and_accepted(visitor: Visitor, repo: Path, url: str) -> None:
    with visitor.visit(url) as page:
        page.get_by_role("link", name="Refused").click()
        assert "key 'card_id' is null" in texts(page, "logs")
        assert "no view has a complete key" in texts(page, "logs")
        assert "the usual share is not known yet" in texts(page, "logs")
        assert "expect_column_values_to_be_between" in texts(page, "batches")
        assert "still refused" in texts(page, "batches")
        assert MARKUP[0] in texts(page, "batch")
        page.get_by_role("link", name="Refused rows").nth(1).click()
        assert MARKUP[1] in texts(page, "sample")
        assert not accessibility_problems(page)
        # The source is still wrong: the preview says so, and nothing happens.
        page.locator("#batches").get_by_role("button", name="Accept corrected rows").click()
        assert "The gate would reject the rows" in page.locator("main").inner_text()
        assert "skewless materialize shop_risk" in page.locator(".command").inner_text()
        page.get_by_role("link", name="Do nothing").click()
        source = repo / "data/shop_risk.parquet"
        rows = pq.read_table(source)
        pq.write_table(rows.slice(0, rows.num_rows - 1), source)
        spoil(source, refund_share=0.5, shop_id="shop-07")
        page.locator("#batches").get_by_role("button", name="Accept corrected rows").click()
        assert "1 row would be accepted, for 1 entity." in page.locator("main").inner_text()
        page.get_by_role("button", name="Accept corrected rows").click()
        assert page.get_by_role("status").inner_text() == (
            "View shop_risk: 1 row accepted, 0 rejected, 1 written to the online store."
        )
        assert "a later run accepted the source" in texts(page, "batches")
    with visitor.visit(f"{url}/refused", scheme="dark", width=NARROW, script=False) as page:
        assert "a later run accepted the source" in texts(page, "batches")
    with visitor.visit(f"{url}/refused", scheme="dark", width=NARROW) as page:
        assert not accessibility_problems(page)
        assert not is_wider_than_window(page)


def test_events_of_history_are_imported_again(visitor: Visitor, url: str) -> None:
    with visitor.visit(f"{url}/refused") as page:
        page.get_by_role("button", name="Import corrected events").click()
        assert "14,409 are in the log already" in page.locator("main").inner_text()
        page.get_by_role("button", name="Import corrected events").click()
        assert page.get_by_role("status").inner_text() == (
            "Event source payments: 0 events accepted, 0 rejected, 0 duplicates."
        )
