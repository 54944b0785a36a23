"""Draws the pictures of the control room: ``python -m tools.room_pictures docs``, which needs Chromium.

The sample project is made, trained, served and scheduled once; then the pages are photographed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

_PROGRAM = (sys.executable, "-m", "skewless.cli")
_WIDTH, _HEIGHT = 1_100, 760


def main() -> None:
    """Write ``control-room-now.png`` and ``control-room-prediction.png`` into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    chromium = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium is missing. Fix: apt-get install chromium-headless-shell")
    with tempfile.TemporaryDirectory(prefix="pictures-") as scratch, ExitStack() as stack:
        repo = Path(scratch) / "fraud"
        make_project(repo)
        stack.enter_context(running(repo, "serve"))
        stack.enter_context(running(repo, "scheduler", ready=False))
        url = stack.enter_context(running(repo, "ui"))
        with urlopen(f"{url}/predictions.json") as reply:  # noqa: S310 - ours
            prediction = json.load(reply)["predictions"]["value"]["rows"][0]["id"]
        take(chromium, url, "/", folder / "control-room-now.png", "light")
        take(chromium, url, f"/predictions/{prediction}", folder / "control-room-prediction.png", "dark")


def make_project(repo: Path) -> None:
    """Make the sample project, with predictions and a round of its scheduled jobs."""
    data = repo / "data"
    run("init", str(repo))
    for words in (
        ("apply",),
        ("import",),
        ("materialize",),
        ("train",),
        ("predict", "fraud", "--in", str(data / "requests.parquet"), "--out", str(repo / "scored.parquet")),
        ("scheduler", "--once"),
    ):
        run(*words, "--repo", str(repo))


def run(*words: str) -> None:
    """Run a command; a refusing check, such as a gate, does not end the pictures."""
    subprocess.run([*_PROGRAM, *words], check=False, stdout=subprocess.DEVNULL)


@contextmanager
def running(repo: Path, *words: str, ready: bool = True) -> Iterator[str]:
    """Start a process of the project; yield its URL once it answers, if it has one."""
    more: Sequence[str] = ("--port", "0", "--json") if ready else ()
    command = [*_PROGRAM, *words, "--repo", str(repo), *more]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None  # noqa: S101 - for the types
        try:
            yield json.loads(process.stdout.readline())["url"] if ready else ""
        finally:
            process.terminate()


def take(chromium: str, url: str, path: str, target: Path, scheme: str) -> None:
    """Photograph the upper part of a page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        context = browser.new_context(color_scheme=scheme, viewport={"width": _WIDTH, "height": _HEIGHT})  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(url + path)
        page.screenshot(path=target)
        browser.close()


if __name__ == "__main__":
    main()
