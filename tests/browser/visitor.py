"""A person with a browser: what they see, and what the browser reports about a page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from shutil import which
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.systems import note_system

Scheme = Literal["light", "dark"]
WIDE, NARROW = 1280, 400
_SERIOUS = {"serious", "critical"}
_HEIGHT = 900


@dataclass(frozen=True)
class Visitor:
    """A person with a browser.

    A new window takes the browser half a second: the next visit has the page of the last one, without its cookies.
    The control room keeps nothing else in a browser.
    """

    browser: Browser
    _unused: dict[bool, list[Page]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Visitor]:
        """Start the browser: one without windows, where there is one, takes four fifths of the time."""
        program = which("chromium-headless-shell") or which("chromium")
        if program is None:
            pytest.skip("Chromium is missing; Debian: apt-get install chromium-headless-shell")
        note_system("Chromium", program, "--version")
        with sync_playwright() as playwright:
            # Without a process that waits for the site of the next page: it is the same site.
            browser = playwright.chromium.launch(executable_path=program, args=["--renderer-process-limit=1"])
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
        page = self._take_page(script=script, other_hosts=other_hosts)
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": _HEIGHT})
        complaints: list[str] = []
        hosts: set[str] = set()

        def note(message: ConsoleMessage) -> None:
            # A page with an error status is not an error of the browser.
            if message.type in {"error", "warning"} and "status of" not in message.text:
                complaints.append(message.text)

        listeners: dict[Any, Callable[[Any], None]] = {
            "console": note,
            "pageerror": lambda error: complaints.append(str(error)),
            "request": lambda sent: hosts.add(urlsplit(sent.url).netloc),
            "dialog": lambda dialog: complaints.append(f"dialog: {dialog.message}"),
        }
        for event, listener in listeners.items():
            page.on(event, listener)
        page.goto(url)
        yield page
        for event, listener in listeners.items():
            page.remove_listener(event, listener)
        if other_hosts:
            page.context.close()
        else:
            page.goto("about:blank")
            page.context.clear_cookies()
            self._unused[script].append(page)
        assert not complaints, complaints
        assert other_hosts or hosts == {urlsplit(url).netloc}

    def _take_page(self, *, script: bool, other_hosts: bool) -> Page:
        """Return the page of an earlier visit, or a new one; a visit of other hosts has its own."""
        if self._unused[script] and not other_hosts:
            return self._unused[script].pop()
        return self.browser.new_context(java_script_enabled=script, ignore_https_errors=other_hosts).new_page()


def accessibility_problems(page: Page) -> list[str]:
    """Return what axe-core finds serious or critical on a page."""
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    result: dict[str, Any] = page.evaluate("axe.run()")
    return [f"{item['id']}: {item['nodes'][0]['html']}" for item in result["violations"] if item["impact"] in _SERIOUS]


def is_wider_than_window(page: Page) -> bool:
    """Return whether a reader must scroll the whole page sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))
