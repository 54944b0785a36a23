"""Each page, in light and dark, wide and narrow, with and without script: readable, accessible, from one origin."""

from __future__ import annotations

import json
from urllib.request import urlopen

import pytest

from tests.browser.visitor import NARROW, WIDE, Scheme, Visitor, accessibility_problems, is_wider_than_window

PATHS = (
    "/",
    "/changes",
    "/changes/1",
    "/models",
    "/models/fraud",
    "/models/fraud/versions/000001",
    "/predictions",
    "/refused",
    "/runs",
    "/search?q=fraud",
    "/views",
    "/views/card_days",
    "/views/card_now",
)


LOOKS = [
    ("light", WIDE),
    ("dark", NARROW),
    pytest.param("dark", WIDE, marks=pytest.mark.soak),
    pytest.param("light", NARROW, marks=pytest.mark.soak),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_page_is_readable(visitor: Visitor, room_url: str, path: str, scheme: Scheme, width: int) -> None:
    with visitor.visit(room_url + path, scheme=scheme, width=width) as page:
        assert page.locator("h1").count() == 1
        assert not accessibility_problems(page)
        assert not is_wider_than_window(page)


@pytest.mark.parametrize("path", PATHS)
def test_page_says_the_same_without_script_and_as_json(visitor: Visitor, room_url: str, path: str) -> None:
    with visitor.visit(room_url + path, script=False) as page:
        assert page.locator("h1").inner_text()
        href = page.get_by_role("link", name="This page as JSON").get_attribute("href")
    with urlopen(f"{room_url}{href}") as reply:  # noqa: S310 - our server
        assert json.load(reply)
