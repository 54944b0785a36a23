"""What the stages of the demo share: the project, the console, the clock, and the facts that they gather."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from skewless.contract.clock import OffsetClock
from skewless.contract.errors import PlaceError
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.demo.feature_gain import LabelledScores
from skewless.project import Project

HOUR_US = 3_600_000_000
STATE = ".skewless/demo"
START_SECONDS = 30.0

Row = dict[str, Any]
Say = Callable[[str], None]


@dataclass(kw_only=True)
class TourState:
    """What the stages share, and the facts that they gather.

    Args:
        tested: per model, its scores on the test rows that it was trained for.
        served: the models with a champion, in their order.
        rows: per served model, the rows of its own label table that it is asked, in the order of their times.
        asked: per served model, what it was asked, as a caller asks.
        scores: per served model, what the server answered, in the order of ``asked``.
        sample: a few predictions, for people.
    """

    project: Project
    console: Console
    facts: dict[str, Any] = field(default_factory=dict)
    tested: dict[str, LabelledScores] = field(default_factory=dict)
    served: list[ModelSpec] = field(default_factory=list)
    rows: dict[str, pa.Table] = field(default_factory=dict)
    scores: dict[str, list[Any]] = field(default_factory=dict)
    asked: dict[str, list[Row]] = field(default_factory=dict)
    sample: list[str] = field(default_factory=list)

    @property
    def clock(self) -> OffsetClock:
        """The clock that every process of the demo reads."""
        clock = self.project.clock
        if not isinstance(clock, OffsetClock):
            raise PlaceError("setting 'clock'", "cannot be moved", fix="unset SKEWLESS_CLOCK")
        return clock

    def plan_of(self, spec: ModelSpec) -> FeaturePlan:
        """Return what a model needs of the plan in force."""
        return self.project.applied.plan.select_service(spec.service)

    @contextmanager
    def stage(self, title: str) -> Iterator[Say]:
        """Print a stage's title, what it says of itself, and its seconds."""
        start = time.perf_counter()
        self.console.print(f"[bold]{title}[/bold]")
        yield lambda line: self.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        seconds = time.perf_counter() - start
        self.facts.setdefault("stages", {})[title] = round(seconds, 2)
        self.console.print(f"  [dim]{seconds:.1f} s[/dim]")


def progress_bar(console: Console) -> Progress:
    """Return a bar that is gone when it is full."""
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def json_rows(plan: FeaturePlan, rows: pa.Table) -> list[Row]:
    """Return label rows as a caller would ask them: entity keys and request fields, JSON values."""
    names = [column.name for column in (*plan.join_keys, *plan.request)]
    return [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in rows.select(names).to_pylist()
    ]
