"""How far a job is, its rate and the time left, on the terminal of whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

Tell = Callable[[str, int, int | None], None]


class Rate(ProgressColumn):
    """Rows so far, and in each second."""

    def render(self, task: Task) -> Text:
        """Return the column's text; the rate comes with the second batch."""
        speed = task.finished_speed or task.speed
        return Text(f"{task.completed:,.0f} rows" + (f", {speed:,.0f}/s" if speed else ""))


@contextmanager
def progress_bar(console: Console, on: str) -> Iterator[Tell]:
    """Show a bar while the block runs; yield a function of what is done, how many rows of it, and of how many.

    Args:
        on: what is shown before anything is done.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), Rate(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task, shown = bar.add_task(on, total=None), on

        def tell(what: str, done: int, total: int | None) -> None:
            nonlocal shown
            if what != shown:
                bar.reset(task, description=what, total=total)
                shown = what
            bar.update(task, completed=done, total=total)

        yield tell
