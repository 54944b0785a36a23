"""The test period, hour by hour: publish what is due, send the events that have happened, ask for what departs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infra.offline.as_of import TIME
from infra.offline.labels import KNOWN, LABEL
from skewless.client import Client, ViewRead
from skewless.clock import from_us
from skewless.demo.feed import Feed
from skewless.demo.gains import Scored, gains
from skewless.demo.processes import StreamWorker
from skewless.demo.walk import HOUR_US, Row, Say, Walk, json_rows, progress_bar
from training.quality import quality_lines
from validation.evaluation.evaluation import evaluate

RACE_ROWS = 100
_SHOWN = 10
_RACING_PART = 12  # of the rows, one in so many is asked in hours that race


@dataclass(frozen=True, kw_only=True)
class Hour:
    """One hour of the test period.

    Args:
        moment: when it begins, microseconds.
        first, last: its rows, ``last`` excluded.
    """

    moment: int
    first: int
    last: int


@dataclass(kw_only=True)
class Hours:
    """Moves through the test period.

    Args:
        rows: label rows, in the order of their prediction times.
        pool: two threads: one publishes, one sends events.
    """

    walk: Walk
    client: Client
    feed: Feed
    worker: StreamWorker
    rows: pa.Table
    pool: ThreadPoolExecutor
    published: int = 0
    killed: str = ""

    def live(self) -> None:
        """Live through it, and say how good the predictions were."""
        walk = self.walk
        with walk.stage("Test period, hour by hour") as say:
            self._all()
            walk.facts["predictions"] = sum(len(scores) for scores in walk.scores.values())
            say(
                f"{self.published:,} rows published in steps, {walk.facts['predictions']:,} predictions asked over HTTP"
            )
            self._say_events(say)
            _live_quality(walk, self.rows, say)
        with walk.stage("Ten predictions from the middle of it, with the age of what they read") as say:
            for line in walk.sample:
                say(line)

    def _all(self) -> None:
        plan = self.walk.project.applied.plan.only(self.walk.project.models[0].service)
        hours = list(_hours(self.rows[TIME].to_numpy()))
        with progress_bar(self.walk.console) as bar:
            task = bar.add_task("hours", total=len(hours))
            for number, hour in enumerate(hours):
                due = json_rows(plan, self.rows.slice(hour.first, hour.last - hour.first))
                racing = self.rows.num_rows - hour.last < self.rows.num_rows // _RACING_PART
                self._hour(hour, due, racing=racing, killing=number == len(hours) // 3)
                if number == len(hours) // 2:
                    _sample(self.walk, self.client, due)
                bar.update(task, completed=number + 1)

    def _hour(self, hour: Hour, due: list[Row], *, racing: bool, killing: bool) -> None:
        walk = self.walk
        walk.clock.set(hour.moment)
        if killing and self.feed:
            self._interrupt(hour, due)
        else:
            self._move(hour, self._recent(due) if racing else [])
        for spec in walk.project.models:
            reply = self.client.predict(due, model=spec.name)
            walk.scores.setdefault(spec.name, []).extend(reply.scores)
        walk.asked.extend(due)

    def _publish(self) -> None:
        self.published += sum(item.accepted for item in self.walk.project.materialize())

    def _apply(self, hour: Hour) -> None:
        self.feed.send(hour.moment)
        self.feed.wait(self.worker.check)

    def _move(self, hour: Hour, asked: list[Row]) -> None:
        """Publish rows and apply events, side by side.

        Args:
            asked: rows to ask without pause meanwhile, so that reads fall inside both; none: wait.
        """
        tasks = [self.pool.submit(self._publish), self.pool.submit(self._apply, hour)]
        while asked and not all(task.done() for task in tasks):
            self._ask(asked)
        for task in tasks:
            task.result()

    def _interrupt(self, hour: Hour, due: list[Row]) -> None:
        """Kill the worker at its work, go on asking while nobody takes events, and start it again."""
        sending = self.pool.submit(self.feed.send, hour.moment)
        pid = self.worker.kill()
        sent = sending.result()
        self._publish()
        self._ask(self._recent(due))
        self.worker.start()
        self.feed.wait(self.worker.check)
        when = f"{from_us(hour.moment):%m-%d %H:%M}"
        self.killed = f"{when}: stream worker {pid} killed (kill -9) as {sent} events came, then started again"

    def _recent(self, due: list[Row]) -> list[Row]:
        return list(islice(reversed(self.walk.asked), RACE_ROWS)) or due

    def _ask(self, rows: list[Row]) -> None:
        self.client.predict(rows, model=self.walk.project.models[0].name)

    def _say_events(self, say: Say) -> None:
        if self.killed:
            say(self.killed)
        for taken in self.feed.taken():
            say(taken.line())
            for reason, count in taken.reasons.most_common():
                say(f"  {count} x {reason}")
            self.walk.facts.setdefault("events", {})[taken.source] = {
                "sent": taken.sent,
                "accepted": taken.accepted,
                "late": taken.late,
                "duplicates": taken.duplicates,
                "quarantined": sum(taken.reasons.values()),
            }


def _hours(t: npt.NDArray[np.int64]) -> Iterator[Hour]:
    hours = t // HOUR_US
    edges = np.flatnonzero(np.diff(hours, prepend=hours[0] - 1)).tolist()
    for first, last in zip(edges, [*edges[1:], len(hours)], strict=True):
        yield Hour(moment=int(hours[first]) * HOUR_US, first=first, last=last)


def _live_quality(walk: Walk, rows: pa.Table, say: Say) -> None:
    labels = rows[LABEL].to_numpy(zero_copy_only=False).astype(np.float64)
    known = ~np.isnan(labels) & pc.is_valid(rows[KNOWN]).to_numpy(zero_copy_only=False).astype(np.bool_)
    scored = {
        name: Scored(labels=labels[known], scores=np.array(scores)[known]) for name, scores in walk.scores.items()
    }
    for spec in walk.project.models:
        metrics = evaluate(scored[spec.name].labels, scored[spec.name].scores, task=spec.task)
        say(f"{spec.name} live, labels known since ({int(known.sum()):,} rows):")
        for line in quality_lines(metrics):
            say(f"  {line}")
        names = ("auc", "log_loss", "base_rate", "calibration_error", "rmse")
        walk.facts.setdefault("live", {})[spec.name] = {name: metrics[name] for name in names if name in metrics}
    for names_of_both, gain in gains(walk.project.models, walk.project.applied.plan, scored).items():
        say(f"{names_of_both} live: {gain.line()}, 95 % of bootstrap draws")
        walk.facts["live_gain"] = {"before": gain.before, "after": gain.after, "low": gain.low, "high": gain.high}
    say("(later weeks than the test rows above: another season, not skew; replay tells the two apart)")
    first = walk.facts["live"][walk.project.models[0].name]
    walk.facts |= {name: first[name] for name in ("auc", "log_loss", "base_rate") if name in first}


def _sample(walk: Walk, client: Client, due: list[Row]) -> None:
    reply = client.predict(due[:_SHOWN], model=walk.project.models[0].name, features=True)
    keys = [column.name for column in walk.project.applied.plan.join_keys]
    for row, item in zip(due, reply, strict=False):
        ages = ", ".join(f"{view} {_age(read)}" for view, read in item.views.items())
        key = " ".join(str(row[name]) for name in keys if name in row)
        walk.sample.append(f"{from_us(reply.t_us):%m-%d %H:%M} {key}: {item.score:.3f}  ({ages})")


def _age(read: ViewRead) -> str:
    if read.status != "PRESENT" or read.age_s is None:
        return read.status
    hours = read.age_s / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} d"  # noqa: PLR2004 - two days
