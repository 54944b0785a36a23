"""A person with a browser: what they see, and what the browser reports about a page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

Scheme = Literal["light", "dark"]
WIDE, NARROW = 1280, 400
_SERIOUS = {"serious", "critical"}
_HEIGHT = 900


@dataclass(frozen=True)
class Visitor:
    """A person with a browser."""

    browser: Browser

    @classmethod
    @contextmanager
    def open(cls, program: str) -> Iterator[Visitor]:
        """Start the browser."""
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=program)
            yield cls(browser)
            browser.close()

    @contextmanager
    def visit(
        self, url: str, *, scheme: Scheme = "light", width: int = WIDE, script: bool = True, other_hosts: bool = False
    ) -> Iterator[Page]:
        """Open a page; at the end, nothing may have come from elsewhere and nothing may have been refused.

        Args:
            script: whether the browser runs scripts.
            other_hosts: whether the visit leads to another origin, whose certificate is of a test.
        """
        context = self.browser.new_context(
            color_scheme=scheme,
            viewport={"width": width, "height": _HEIGHT},
            java_script_enabled=script,
            ignore_https_errors=other_hosts,
        )
        page = context.new_page()
        complaints: list[str] = []
        hosts: set[str] = set()

        def note(message: ConsoleMessage) -> None:
            # A page with an error status is not an error of the browser.
            if message.type in {"error", "warning"} and "status of" not in message.text:
                complaints.append(message.text)

        def request(sent: Request) -> None:
            hosts.add(urlsplit(sent.url).netloc)

        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", request)
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.goto(url)
        yield page
        context.close()
        assert not complaints, complaints
        assert other_hosts or hosts == {urlsplit(url).netloc}


def accessibility_problems(page: Page) -> list[str]:
    """Return what axe-core finds serious or critical on a page."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    result: dict[str, Any] = page.evaluate("axe.run()")
    return [f"{item['id']}: {item['nodes'][0]['html']}" for item in result["violations"] if item["impact"] in _SERIOUS]


def is_wider_than_window(page: Page) -> bool:
    """Return whether a reader must scroll the whole page sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))
