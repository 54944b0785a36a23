"""The whole walk on a project's own data: its clock goes back to before the test period and lives through it."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from infra.offline.as_of import TIME
from infra.offline.labels import KNOWN, LABEL, askable, read_labels
from skewless.client import Client
from skewless.clock import OffsetClock, from_us
from skewless.errors import PlaceError
from skewless.plan import FeaturePlan
from skewless.project import Project
from skewless.spec import ModelSpec
from training.evaluation import evaluate
from training.quality import quality_lines

_HOUR = 3_600_000_000
_SHOWN = 10
_RACE_ROWS = 100
_STATE = ".skewless/demo"
_START_SECONDS = 30.0

Row = dict[str, Any]


@dataclass(kw_only=True)
class Walk:
    """What the stages share, and the facts that they gather."""

    project: Project
    console: Console
    facts: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, list[float]] = field(default_factory=dict)
    asked: list[Row] = field(default_factory=list)
    sample: list[str] = field(default_factory=list)

    @property
    def clock(self) -> OffsetClock:
        """The clock that every process of the demo reads."""
        clock = self.project.clock
        if not isinstance(clock, OffsetClock):
            raise PlaceError("setting 'clock'", "cannot be moved", fix="unset SKEWLESS_CLOCK")
        return clock

    @contextmanager
    def stage(self, title: str) -> Iterator[Callable[[str], None]]:
        """Print a stage's title, what it says of itself, and its seconds."""
        start = time.perf_counter()
        self.console.print(f"[bold]{title}[/bold]")
        yield lambda line: self.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
        seconds = time.perf_counter() - start
        self.facts.setdefault("stages", {})[title] = round(seconds, 2)
        self.console.print(f"  [dim]{seconds:.1f} s[/dim]")


def run_demo(repo: Path) -> dict[str, Any]:
    """Walk from definitions to a proven, retrained model; return the facts; everything started is stopped.

    Args:
        repo: a project whose label tables hold the test period of its models.

    Raises:
        SkewlessError: a stage failed; its message says what to fix.
    """
    start = time.perf_counter()
    state = (repo / _STATE).resolve()
    shutil.rmtree(state, ignore_errors=True)
    project = Project(repo, state=_STATE, clock=f"file:{state}/clock", port=0)
    walk = Walk(project=project, console=Console())
    try:
        rows = _prepare(walk)
        with _server(walk) as client:
            _live(walk, client, rows)
            _retrain(walk, client)
        _replay(walk)
    finally:
        project.close()
    _where_next(walk)
    walk.facts["seconds"] = round(time.perf_counter() - start, 1)
    return walk.facts


def _prepare(walk: Walk) -> pa.Table:
    project = walk.project
    with walk.stage("Definitions -> plan") as say:
        report = project.apply()
        say(f"plan {report.hash}: {len(report.changes)} new views, transforms, services and models")
    spec = project.models[0]
    plan = project.applied.plan.only(spec.service)
    rows = read_labels(project.connection, project.repo, plan, spec)
    begin = int(pc.max(rows[TIME]).as_py()) - spec.as_dict()["split"]["test"]
    # One hour early: the clock ticks while models train, and must never be moved back.
    walk.clock.set(begin // _HOUR * _HOUR - _HOUR)
    with walk.stage("Data -> checked") as say:
        say(f"the clock now says {from_us(walk.clock.now_us()):%Y-%m-%d %H:%M} UTC; nothing later is seen")
        for check in project.validate():
            check.raise_if_failed()
            say(f"{check.name}: {check.n_rows:,} rows, {len(check.results)} expectations hold")
    with walk.stage("Published rows -> accepted log -> Redis") as say:
        for item in project.materialize():
            say(f"{item.view}: {item.accepted:,} rows accepted, {item.rejected} quarantined, {item.written:,} keys")
    for spec in project.models:
        _train(walk, spec)
    later = pc.greater_equal(rows[TIME], begin // _HOUR * _HOUR)
    return rows.filter(pc.and_(later, pa.array(askable(plan.request, rows))))


def _train(walk: Walk, spec: ModelSpec) -> None:
    with walk.stage(f"Training set -> {spec.name}") as say:
        report = walk.project.train(spec.name)
        say(", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in report.dataset.counts.items()))
        say(f"{int(report.dataset.train.sum()):,} rows train, {int(report.dataset.test.sum()):,} later rows test")
        for line in quality_lines(report.trained.metrics):
            say(line)
        say(f"version {report.trained.package.version}: {report.decision.reason}")


@contextmanager
def _server(walk: Walk) -> Iterator[Client]:
    with walk.stage("Server") as say:
        begin = time.perf_counter()
        said = walk.project.state / "server.log"
        with said.open("wb") as output:
            process = subprocess.Popen(
                _command(walk, "serve", "--port", "0", "--json"), env=_environment(walk), stdout=output, stderr=output
            )
        try:
            url = _wait_for(process, walk.project.state / "server.json")
        except PlaceError:
            process.kill()
            raise
        say(f"{url} ready after {time.perf_counter() - begin:.1f} s, {_resident_mb(process.pid)} MB")
    client = Client(url)
    try:
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(30)


def _wait_for(process: subprocess.Popen[bytes], place: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if place.exists() and (text := place.read_text()):
            return str(json.loads(text)["url"])
        time.sleep(0.02)
    raise PlaceError("server", "did not start", value=process.poll(), fix=f"see {place.with_name('server.log')}")


def _live(walk: Walk, client: Client, rows: pa.Table) -> None:
    """Move hour by hour: publish what is due, then ask for what is due within the hour."""
    specs = walk.project.models
    plan = walk.project.applied.plan.only(specs[0].service)
    hours = rows[TIME].to_numpy() // _HOUR
    edges = np.flatnonzero(np.diff(hours, prepend=hours[0] - 1))
    with walk.stage("Test period, hour by hour") as say, _bar(walk.console) as bar:
        task = bar.add_task("hours", total=int(hours[-1] - hours[0]) + 1)
        accepted = 0
        middle = int(edges[len(edges) // 2])
        for begin, end in zip(edges, [*edges[1:], len(hours)], strict=True):
            due = json_rows(plan, rows.slice(begin, end - begin))
            racing = len(hours) - end < len(hours) // 12
            accepted += _hour(walk, client, int(hours[begin]) * _HOUR, due, racing=racing)
            if begin == middle:
                _sample(walk, client, due)
            bar.update(task, completed=int(hours[begin] - hours[0]) + 1)
        walk.facts["predictions"] = sum(len(scores) for scores in walk.scores.values())
        say(f"{accepted:,} rows published in steps, {walk.facts['predictions']:,} predictions asked over HTTP")
        _live_quality(walk, rows, say)
    with walk.stage("Ten predictions from the middle of it, with the age of what they read") as say:
        for line in walk.sample:
            say(line)


def _hour(walk: Walk, client: Client, moment: int, due: list[Row], *, racing: bool) -> int:
    walk.clock.set(moment)
    accepted = _race(walk, client, due) if racing else _publish(walk)
    for spec in walk.project.models:
        reply = client.predict(due, model=spec.name)
        walk.scores.setdefault(spec.name, []).extend(item["score"] for item in reply["predictions"])
    walk.asked.extend(due)
    return accepted


def _publish(walk: Walk) -> int:
    return sum(item.accepted for item in walk.project.materialize())


def _race(walk: Walk, client: Client, due: list[Row]) -> int:
    """Ask without pause while a materialisation runs, so that reads fall inside it."""
    recent = list(islice(reversed(walk.asked), _RACE_ROWS)) or due
    with ThreadPoolExecutor(1) as pool:
        publishing = pool.submit(_publish, walk)
        while not publishing.done():
            client.predict(recent, model=walk.project.models[0].name)
    return publishing.result()


def _live_quality(walk: Walk, rows: pa.Table, say: Callable[[str], None]) -> None:
    known = ~np.isnan(labels := rows[LABEL].to_numpy(zero_copy_only=False).astype(np.float64))
    known &= pc.is_valid(rows[KNOWN]).to_numpy(zero_copy_only=False).astype(np.bool_)
    for spec in walk.project.models:
        metrics = evaluate(labels[known], np.array(walk.scores[spec.name])[known], task=spec.task)
        say(f"{spec.name} live, labels known since ({int(known.sum()):,} rows):")
        for line in quality_lines(metrics):
            say(f"  {line}")
        names = ("auc", "log_loss", "base_rate", "calibration_error", "rmse")
        walk.facts.setdefault("live", {})[spec.name] = {name: metrics[name] for name in names if name in metrics}
    say("(later weeks than the test rows above: another season, not skew; replay tells the two apart)")
    first = walk.facts["live"][walk.project.models[0].name]
    walk.facts |= {name: first[name] for name in ("auc", "log_loss", "base_rate") if name in first}


def _retrain(walk: Walk, client: Client) -> None:
    with walk.stage("Scheduler round: materialise, validate, retrain, promote") as say:
        before = {item["model"]: item["version"] for item in client.models()["models"]}
        reply = subprocess.run(
            _command(walk, "scheduler", "--once", "--json"),
            env=_environment(walk),
            capture_output=True,
            text=True,
            check=False,
        )
        for job in json.loads(reply.stdout)["jobs"]:
            reason = (
                job["detail"].get("reason")
                or job["detail"].get("problem")
                or ", ".join(f"{k} {v}" for k, v in job["detail"].items())
            )
            say(f"{job['job']}: {'done' if job['ok'] else 'refused'} in {job['seconds']:.1f} s; {reason}")
        after = _wait_for_versions(walk, client)
        for model, version in after.items():
            reply = client.predict(walk.asked[-_RACE_ROWS:], model=model)
            moved = f"went from {before[model]} to" if version != before[model] else "stays with"
            say(f"{model}: the running server {moved} {version}; it answered {_RACE_ROWS} rows with {reply['version']}")
        walk.facts["versions"] = after


def _wait_for_versions(walk: Walk, client: Client) -> dict[str, str]:
    from infra.packages.aliases import Aliases

    aliases = Aliases(walk.project.packages)
    wanted = {spec.name: aliases.get(spec.name, "champion") for spec in walk.project.models}
    deadline = time.monotonic() + _START_SECONDS
    while True:
        served = {item["model"]: item["version"] for item in client.models()["models"]}
        if served == wanted or time.monotonic() > deadline:
            return served
        time.sleep(0.05)


def _sample(walk: Walk, client: Client, due: list[Row]) -> None:
    reply = client.predict(due[:_SHOWN], model=walk.project.models[0].name, features=True)
    keys = [column.name for column in walk.project.applied.plan.join_keys]
    for row, item in zip(due, reply["predictions"], strict=False):
        ages = ", ".join(f"{view} {_age(read)}" for view, read in item["views"].items())
        key = " ".join(str(row[name]) for name in keys if name in row)
        walk.sample.append(f"{from_us(reply['t_us']):%m-%d %H:%M} {key}: {item['score']:.3f}  ({ages})")


def _age(read: dict[str, Any]) -> str:
    if read["status"] != "PRESENT":
        return str(read["status"])
    hours = read["age_s"] / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} d"  # noqa: PLR2004 - two days


def _replay(walk: Walk) -> None:
    with walk.stage("Replay, in another process, without Redis") as say:
        environment = _environment(walk) | {"SKEWLESS_REDIS_URL": "redis://127.0.0.1:1"}
        reply = subprocess.run(
            _command(walk, "replay", "--json"), env=environment, capture_output=True, text=True, check=False
        )
        report = json.loads(reply.stdout)
        for line in report["lines"]:
            say(line)
        walk.facts |= {
            "replayed": report["compared"],
            "different_bits": report["different"],
            "status": report["status"],
        }
        walk.facts |= {"inside_run": report["inside_run"], "changing": report["changing"]}


def _where_next(walk: Walk) -> None:
    where = f"SKEWLESS_STATE={_STATE} skewless {{}} --repo {os.path.relpath(walk.project.repo)}"
    walk.console.print("[bold]Where to look next[/bold]")
    for verb in ("status", "replay", "plan"):
        walk.console.print(f"  {where.format(verb)}", highlight=False)
    walk.console.print("  docs/first-project.md: your own data, from `skewless init my-project`", highlight=False)


def json_rows(plan: FeaturePlan, rows: pa.Table) -> list[Row]:
    """Return label rows as a caller would ask them: entity keys and request fields, JSON values."""
    names = [column.name for column in (*plan.join_keys, *plan.request)]
    return [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in rows.select(names).to_pylist()
    ]


def _command(walk: Walk, *words: str) -> Sequence[str]:
    return [sys.executable, "-m", "skewless.cli", words[0], "--repo", str(walk.project.repo), *words[1:]]


def _environment(walk: Walk) -> dict[str, str]:
    # `import feast` sets these for itself; a child that inherits them would write its metrics there.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_MULTIPROC")}
    settings = walk.project.settings
    return kept | {
        "SKEWLESS_STATE": settings.state,
        "SKEWLESS_CLOCK": settings.clock,
        "SKEWLESS_REDIS_URL": walk.project.redis_url,
    }


def _bar(console: Console) -> Progress:
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def _resident_mb(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "?"
    return str(int(status.split("VmRSS:")[1].split()[0]) // 1024)
