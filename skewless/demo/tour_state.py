"""The shared state of the demo's stages: project, console, clock, and facts."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from skewless.contract.clock import OffsetClock
from skewless.contract.errors import PlaceError
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.infra.telemetry.logger import configure_logging
from skewless.operations.readable import duration_text
from skewless.project import Project
from skewless.validation.evaluation.bootstrap import ScoredRows

HOUR_US = 3_600_000_000
STATE = ".skewless/demo"
START_SECONDS = 30.0

Row = dict[str, Any]
PrintLine = Callable[[str], None]


@dataclass(kw_only=True)
class TourState:
    """The shared state of the stages.

    Args:
        facts: results, printed as JSON at the end.
        tested: scores on the test rows of the training, by model.
        served: models with a champion, in order.
        rows: requested rows of the label table by served model, in the order of their times.
        asked: sent request rows by served model.
        scores: scores of the server by served model, in the order of ``asked``.
        sample: a few predictions, for people.
    """

    project: Project
    console: Console
    facts: dict[str, Any] = field(default_factory=dict)
    tested: dict[str, ScoredRows] = field(default_factory=dict)
    served: list[ModelSpec] = field(default_factory=list)
    rows: dict[str, pa.Table] = field(default_factory=dict)
    scores: dict[str, list[Any]] = field(default_factory=dict)
    asked: dict[str, list[Row]] = field(default_factory=dict)
    sample: list[str] = field(default_factory=list)

    @property
    def clock(self) -> OffsetClock:
        """The clock of all processes of the demo."""
        clock = self.project.clock
        if not isinstance(clock, OffsetClock):
            raise PlaceError("setting 'clock'", "cannot be moved", fix="unset SKEWLESS_CLOCK")
        return clock

    def plan_of(self, spec: ModelSpec) -> FeaturePlan:
        """Return the part of the applied plan that a model needs."""
        return self.project.applied.plan.select_service(spec.service)

    @contextmanager
    def stage(self, title: str) -> Iterator[PrintLine]:
        """Print a stage's title, its lines, and its duration; yield the function that prints a line."""
        start = time.perf_counter()
        self.console.print(f"[bold]{title}[/bold]")
        yield lambda line: self.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        seconds = time.perf_counter() - start
        self.facts.setdefault("stages", {})[title] = round(seconds, 2)
        self.console.print(f"  [dim]{duration_text(seconds)}[/dim]")


@contextmanager
def log_to_file(console: Console, file: Path) -> Iterator[None]:
    """Send log lines and warnings to a file while the block runs, and print its path: the demo prints only its stages.

    Errors of the block are printed by the command, after it.
    """
    console.print(f"logs: {os.path.relpath(file)}", highlight=False, markup=False, soft_wrap=True)
    try:
        with file.open("a", encoding="utf-8", buffering=1) as stream, redirect_stderr(stream):
            configure_logging()
            yield
    finally:
        configure_logging()


def progress_bar(console: Console) -> Progress:
    """Return a progress bar that disappears when it is complete."""
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # Without a terminal, a bar would leave an empty line.
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def json_rows(plan: FeaturePlan, rows: pa.Table) -> list[Row]:
    """Return label rows as request rows: entity keys and request fields, JSON values."""
    names = [column.name for column in (*plan.join_keys, *plan.request)]
    return [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in rows.select(names).to_pylist()
    ]
