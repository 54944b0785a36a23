"""The test period, hour by hour: publish what is due, send the events that have happened, ask for what departs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from skewless.client import Client, ReplyView
from skewless.contract.clock import from_us
from skewless.contract.spec import ModelSpec
from skewless.demo.feature_gain import LabelledScores, gains
from skewless.demo.feed import Feed
from skewless.demo.processes import StreamWorker
from skewless.demo.tour_state import HOUR_US, Row, Say, TourState, json_rows, progress_bar
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.labels import KNOWN, LABEL
from skewless.training.quality import quality_lines
from skewless.training.slices import SliceColumn
from skewless.validation.evaluation.evaluation import evaluate

RACE_ROWS = 100
_SHOWN = 10
_RACING_PART = 12  # of the rows, one in so many is asked in hours that race

_Due = dict[str, list[Row]]  # model -> what it is asked in an hour
_Question = tuple[str, list[Row]]


@dataclass(frozen=True, kw_only=True)
class Hour:
    """One hour of the test period.

    Args:
        moment: when it begins, microseconds.
        rows: per model that is asked in it, its rows.
    """

    moment: int
    rows: Mapping[str, slice]


@dataclass(kw_only=True)
class Hours:
    """Moves through the test period.

    Args:
        pool: two threads: one publishes, one sends events.
    """

    walk: TourState
    client: Client
    feed: Feed
    worker: StreamWorker
    pool: ThreadPoolExecutor
    published: int = 0
    killed: str = ""

    def live(self) -> None:
        """Live through it, and say how good the predictions were."""
        walk = self.walk
        with walk.stage("Test period, hour by hour") as say:
            self._all()
            walk.facts["predictions"] = sum(len(scores) for scores in walk.scores.values())
            walk.facts["asked"] = {name: len(rows) for name, rows in walk.asked.items()}
            say(
                f"{self.published:,} rows published in steps, {walk.facts['predictions']:,} predictions asked over HTTP"
            )
            self._say_events(say)
            _live_quality(walk, say)
        with walk.stage("Ten predictions from the middle of it, with the age of what they read") as say:
            for line in walk.sample:
                say(line)

    def _all(self) -> None:
        hours = list(hours_of({name: rows[TIME].to_numpy() for name, rows in self.walk.rows.items()}))
        left = total = sum(rows.num_rows for rows in self.walk.rows.values())
        with progress_bar(self.walk.console) as bar:
            task = bar.add_task("hours", total=len(hours))
            for number, hour in enumerate(hours):
                due = {spec.name: self._due(spec, hour) for spec in self.walk.served if spec.name in hour.rows}
                left -= sum(map(len, due.values()))
                self._hour(hour, due, racing=left < total // _RACING_PART, killing=number == len(hours) // 3)
                if number == len(hours) // 2:
                    _sample(self.walk, self.client, due)
                bar.update(task, completed=number + 1)

    def _due(self, spec: ModelSpec, hour: Hour) -> list[Row]:
        where = hour.rows[spec.name]
        rows = self.walk.rows[spec.name].slice(where.start, where.stop - where.start)
        return json_rows(self.walk.plan_of(spec), rows)

    def _hour(self, hour: Hour, due: _Due, *, racing: bool, killing: bool) -> None:
        walk = self.walk
        walk.clock.set(hour.moment)
        if killing and self.feed:
            self._interrupt(hour, due)
        else:
            self._move(hour, self._recent(due) if racing else None)
        for name, rows in due.items():
            reply = self.client.predict(rows, model=name)
            walk.scores.setdefault(name, []).extend(item.scores or item.score for item in reply)
            walk.asked.setdefault(name, []).extend(rows)

    def _publish(self) -> None:
        self.published += sum(item.accepted for item in self.walk.project.materialize())

    def _apply(self, hour: Hour) -> None:
        self.feed.send(hour.moment)
        self.feed.wait(self.worker.check)

    def _move(self, hour: Hour, asked: _Question | None) -> None:
        """Publish rows and apply events, side by side.

        Args:
            asked: what to ask without pause meanwhile, so that reads fall inside both; None: wait.
        """
        tasks = [self.pool.submit(self._publish), self.pool.submit(self._apply, hour)]
        while asked is not None and not all(task.done() for task in tasks):
            self._ask(asked)
        for task in tasks:
            task.result()

    def _interrupt(self, hour: Hour, due: _Due) -> None:
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

    def _recent(self, due: _Due) -> _Question:
        """Return what the first model of the hour was asked last."""
        name, rows = next(iter(due.items()))
        return name, list(islice(reversed(self.walk.asked.get(name, [])), RACE_ROWS)) or rows

    def _ask(self, question: _Question) -> None:
        name, rows = question
        self.client.predict(rows, model=name)

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


def hours_of(times: Mapping[str, npt.NDArray[np.int64]]) -> Iterator[Hour]:
    """Yield the hours in which a model is asked something.

    Args:
        times: per model, the prediction times of its rows, growing, microseconds.

    >>> hour = HOUR_US
    >>> found = hours_of({"a": np.array([5 * hour, 5 * hour + 1, 7 * hour]), "b": np.array([7 * hour + 3])})
    >>> [(each.moment // hour, sorted(each.rows)) for each in found]
    [(5, ['a']), (7, ['a', 'b'])]
    """
    hours = {name: t // HOUR_US for name, t in times.items()}
    for number in sorted({int(hour) for each in hours.values() for hour in np.unique(each)}):
        edges = {name: np.searchsorted(each, [number, number + 1]).tolist() for name, each in hours.items()}
        rows = {name: slice(first, last) for name, (first, last) in edges.items() if first < last}
        yield Hour(moment=number * HOUR_US, rows=rows)


def _live_quality(walk: TourState, say: Say) -> None:
    live = {spec.name: _labelled(walk, spec) for spec in walk.served}
    scored = {name: found for name, found in live.items() if found.labels.size}
    for spec in walk.served:
        if spec.name not in scored:
            say(f"{spec.name} live: no label of what it was asked is known")
            continue
        found = scored[spec.name]
        metrics = evaluate(found.labels, found.scores, task=spec.task, groups=found.groups)
        say(f"{spec.name} live, labels known since ({found.labels.size:,} rows):")
        for line in quality_lines(metrics):
            say(f"  {line}")
        names = ("auc", "log_loss", "base_rate", "calibration_error", "rmse")
        walk.facts.setdefault("live", {})[spec.name] = {name: metrics[name] for name in names if name in metrics}
    for names_of_both, gain in gains(
        [s for s in walk.served if s.name in scored], walk.project.applied.plan, scored
    ).items():
        say(f"{names_of_both} live: {gain.line()}, 95 % of bootstrap draws")
        walk.facts["live_gain"] = {"before": gain.before, "after": gain.after, "low": gain.low, "high": gain.high}
    say("(later weeks than the test rows above: another season, not skew; replay tells the two apart)")
    first = walk.facts.get("live", {}).get(walk.served[0].name, {})
    walk.facts |= {name: first[name] for name in ("auc", "log_loss", "base_rate") if name in first}


def _labelled(walk: TourState, spec: ModelSpec) -> LabelledScores:
    """Return what a model answered beside the labels of its own table, where they are known."""
    rows = walk.rows[spec.name]
    labels = rows[LABEL].to_numpy(zero_copy_only=False).astype(np.float64)
    known = ~np.isnan(labels) & pc.is_valid(rows[KNOWN]).to_numpy(zero_copy_only=False).astype(np.bool_)
    groups = None if spec.group is None else SliceColumn.of(rows[spec.group]).codes[known]
    return LabelledScores(labels=labels[known], scores=np.array(walk.scores.get(spec.name, []))[known], groups=groups)


def _sample(walk: TourState, client: Client, due: _Due) -> None:
    name, rows = next(iter(due.items()))
    spec = walk.project.applied.model(name)
    reply = client.predict(rows[:_SHOWN], model=name, features=True)
    keys = [column.name for column in walk.plan_of(spec).join_keys]
    for row, item in zip(rows, reply, strict=False):
        ages = ", ".join(f"{view} {_age(read)}" for view, read in item.views.items())
        key = " ".join(str(row[name]) for name in keys if name in row)
        walk.sample.append(f"{from_us(reply.t_us):%m-%d %H:%M} {key}: {item.score:.3f}  ({ages})")


def _age(read: ReplyView) -> str:
    if read.status != "PRESENT" or read.age_s is None:
        return read.status
    hours = read.age_s / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} d"  # noqa: PLR2004 - two days
