"""What a person sees while a job runs."""

from __future__ import annotations

import io
import time

from rich.console import Console

from skewless.commands.progress import progress_bar


def test_a_terminal_shows_what_is_done_how_much_how_fast_and_how_long_it_will_take() -> None:
    terminal = io.StringIO()
    with progress_bar(Console(file=terminal, force_terminal=True, width=120), "materialising") as tell:
        tell("fares: accepting", 100_000, None)
        time.sleep(0.15)
        for done in (1_000, 2_000, 3_000):
            tell("fares: applying", done, 4_000)
            time.sleep(0.15)
    shown = terminal.getvalue()
    assert "fares: accepting" in shown
    assert "100,000 rows" in shown
    assert "3,000 rows, " in shown
    assert "/s" in shown
    assert "0:00:00" in shown
