"""The parts that the stages of the demo share: project, clock and facts, its processes, and the gain of features."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from skewless.client import Client
from skewless.contract.clock import OffsetClock
from skewless.contract.errors import PlaceError
from skewless.contract.plan import FeaturePlan
from skewless.contract.readable import duration_text
from skewless.contract.spec import ModelSpec
from skewless.infra.platform.telemetry.logger import configure_logging
from skewless.operations.jobs.scheduler import child_environment
from skewless.project import Project
from skewless.validation.evaluation.bootstrap import MetricGain, ScorePair, paired_gain
from skewless.validation.evaluation.metrics import ScoredRows

_RESAMPLES = 400


def gain_text(gain: MetricGain) -> str:
    """Return an AUC's gain for people."""
    interval = f"gain {gain.gain:.3f} [{gain.low:.3f}, {gain.high:.3f}]"
    return f"AUC {gain.champion:.3f} -> {gain.candidate:.3f}, {interval}, 95 % bootstrap interval"


def auc_gain(before: ScoredRows, after: ScoredRows) -> MetricGain | None:
    """Return the gain of the second model on the same rows; None: the labels differ, or an AUC does not exist."""
    if not np.array_equal(before.labels, after.labels):
        return None
    pair = ScorePair(labels=before.labels, candidate=after.scores, champion=before.scores)
    gain = paired_gain(pair, "auc", resamples=_RESAMPLES)
    return None if gain.low is None else gain


def pairs(models: Sequence[ModelSpec], plan: FeaturePlan) -> Iterator[tuple[str, str]]:
    """Yield pairs of binary models that differ only in their views: fewer views first."""
    views = {spec.name: {view.name for view in plan.select_service(spec.service).all_views} for spec in models}
    for less in models:
        for more in models:
            is_pair = replace(more, name=less.name, service=less.service, retrain=less.retrain) == less
            if is_pair and less.task == "binary" and views[less.name] < views[more.name]:
                yield less.name, more.name


def gains(models: Sequence[ModelSpec], plan: FeaturePlan, scored: Mapping[str, ScoredRows]) -> dict[str, MetricGain]:
    """Return the gains of more views on scored rows, by the names of both models."""
    by_names = {f"{less} -> {more}": auc_gain(scored[less], scored[more]) for less, more in pairs(models, plan)}
    return {names: gain for names, gain in by_names.items() if gain is not None}


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


_STOP_SECONDS = 30


@contextmanager
def serving(tour: TourState) -> Iterator[Client]:
    """Start the server and yield its client; stop the server at the end."""
    with tour.stage("Server") as print_line:
        begin = time.perf_counter()
        process = _start(tour, "server.log", "serve", "--port", "0", "--json")
        try:
            url = _wait_for_url(process, tour.project.state / "server.json")
        except PlaceError:
            process.kill()
            raise
        print_line(f"{url} ready after {time.perf_counter() - begin:.1f} s, {_resident_mb(process.pid)} MB")
    client = Client(url)
    try:
        yield client
    finally:
        client.close()
        _stop(process)


class StreamWorker:
    """The process of ``skewless stream``, which can be killed and started again."""

    def __init__(self, tour: TourState) -> None:
        self._tour = tour
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; it ingests new events and events of the time without a worker."""
        self._process = _start(self._tour, "stream.log", "stream", "--json")

    def kill(self) -> int:
        """Kill the process with SIGKILL; return its id."""
        if self._process is None:
            raise PlaceError("stream worker", "is not running", fix="start it first")
        process, self._process = self._process, None
        process.kill()
        process.wait(_STOP_SECONDS)
        return process.pid

    def check(self) -> None:
        """Check that the process has not ended.

        Raises:
            PlaceError: it has ended.
        """
        if self._process is not None and self._process.poll() is not None:
            log = self._tour.project.state / "stream.log"
            raise PlaceError("stream worker", "has ended", value=self._process.returncode, fix=f"read {log}")

    def stop(self) -> None:
        """Stop the process after its current batch."""
        if self._process is not None:
            _stop(self._process)
            self._process = None


def run_command(tour: TourState, *words: str, field: str, **variables: str) -> Any:  # noqa: ANN401 - JSON
    """Run a command in a process; return its JSON.

    Args:
        field: a field of the expected result.

    Raises:
        PlaceError: the command failed.
    """
    reply = subprocess.run(
        _command(tour, *words, "--json"),
        env=_environment(tour) | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    body = json.loads(reply.stdout) if reply.stdout.strip() else {}
    if field not in body:
        problem = body.get("error", {}).get("message") or reply.stderr.strip() or "printed no result"
        raise PlaceError(f"command `skewless {' '.join(words)}`", f"failed: {problem}", fix="run the command by hand")
    return body


def _start(tour: TourState, log: str, *words: str) -> subprocess.Popen[bytes]:
    with (tour.project.state / log).open("ab") as output:
        return subprocess.Popen(_command(tour, *words), env=_environment(tour), stdout=output, stderr=output)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(_STOP_SECONDS)


def wait_for(thing: str, problem: str, log: str = "server.log", seconds: float = START_SECONDS) -> Iterator[None]:
    """Yield again and again, until the caller has seen what it waits for.

    Args:
        thing, problem, log: for the error: what it waits for, and the file that tells more.

    Raises:
        PlaceError: it took too long.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield None
        time.sleep(0.01)
    raise PlaceError(thing, problem, fix=f"read {log} in the state folder")


def _wait_for_url(process: subprocess.Popen[bytes], file: Path) -> str:
    for _ in wait_for("server", "did not start"):
        if process.poll() is not None:
            raise PlaceError("server", "has ended", value=process.poll(), fix=f"read {file.with_name('server.log')}")
        if file.exists() and (text := file.read_text()):
            return str(json.loads(text)["url"])
    raise TypeError(file)  # `wait_for` ends with an error


def _command(tour: TourState, *words: str) -> list[str]:
    return [sys.executable, "-m", "skewless.cli", words[0], "--repo", str(tour.project.repo), *words[1:]]


def _environment(tour: TourState) -> dict[str, str]:
    return child_environment(tour.project) | {"SKEWLESS_REDIS_URL": tour.project.redis_url}


def _resident_mb(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "?"
    return str(int(status.split("VmRSS:")[1].split()[0]) // 1024)
