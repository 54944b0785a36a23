"""Each page, in light and dark, wide and narrow, with and without script: readable, accessible, from one origin."""

from __future__ import annotations

import json
from itertools import product
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


# Each page once, and some of them also in the other colours, which differ by style alone; the rest with `make soak`.
OFTEN = {
    *(("light", WIDE, path) for path in PATHS),
    *(("dark", NARROW, path) for path in ("/", "/models/fraud", "/views/card_days")),
}
LOOKS = [
    pytest.param(*look, marks=() if look in OFTEN else pytest.mark.soak)
    for look in product(("light", "dark"), (WIDE, NARROW), PATHS)
]


@pytest.mark.parametrize(("scheme", "width", "path"), LOOKS)
def test_page_is_readable(visitor: Visitor, room_url: str, scheme: Scheme, width: int, path: str) -> None:
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
