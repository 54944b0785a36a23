"""The progress bar of a job: rows, rate and remaining time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

OnProgress = Callable[[str, int, int | None], None]


class Rate(ProgressColumn):
    """Rows so far, and rows per second."""

    def render(self, task: Task) -> Text:
        """Return the column's text; the rate is known from the second batch on."""
        speed = task.finished_speed or task.speed
        return Text(f"{task.completed:,.0f} rows" + (f", {speed:,.0f}/s" if speed else ""))


@contextmanager
def progress_bar(console: Console, activity: str) -> Iterator[OnProgress]:
    """Show a bar while the block runs; yield the function that advances it.

    That function takes the current activity, the rows done, and the rows in all, if known.

    Args:
        activity: shown until the first call.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), Rate(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task, current = bar.add_task(activity, total=None), activity

        def on_progress(activity: str, done: int, total: int | None) -> None:
            nonlocal current
            if activity != current:
                bar.reset(task, description=activity, total=total)
                current = activity
            bar.update(task, completed=done, total=total)

        yield on_progress
