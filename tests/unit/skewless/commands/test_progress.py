"""What a person sees while a job runs."""

from __future__ import annotations

import io
import re

from rich.console import Console

from skewless.commands.progress import progress_bar
from tests.worlds.waiting import until


def test_a_terminal_shows_what_is_done_how_much_how_fast_and_how_long_it_will_take() -> None:
    terminal = io.StringIO()
    with progress_bar(Console(file=terminal, force_terminal=True, width=120), "materialising") as tell:
        tell("fares: accepting", 100_000, None)
        until(lambda: "100,000 rows" in terminal.getvalue())
        for done in (1_000, 2_000, 3_000):
            tell("fares: applying", done, 4_000)
            until(lambda done=done: f"{done:,} rows" in terminal.getvalue())  # type: ignore[misc]  # bound at once
    shown = terminal.getvalue()
    assert "fares: accepting" in shown
    assert re.search(r"3,000 rows, .*/s", shown)
    assert re.search(r"\d:\d\d:\d\d", shown)
