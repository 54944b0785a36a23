"""The test period, hour by hour: materialize due rows, send due events, request predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from skewless.client import Client, ReplyView
from skewless.contract.clock import from_us
from skewless.contract.readable import duration_text
from skewless.contract.spec import ModelSpec
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.labels import KNOWN, LABEL
from skewless.training.decision import SliceColumn
from skewless.training.quality import quality_lines
from skewless.validation.evaluation.evaluation import evaluate
from skewless.validation.evaluation.metrics import ScoredRows
from skewless_demo.decided import ReceivedDecisions, prove
from skewless_demo.feed import Feed
from skewless_demo.outcomes import SentOutcomes
from skewless_demo.tour_state import (
    HOUR_US,
    PrintLine,
    Row,
    StreamWorker,
    TourState,
    gain_text,
    gains,
    json_rows,
    progress_bar,
)

RACE_ROWS = 100
_SAMPLE_ROWS = 10
_DAY_HOURS = 24
_LAST_HOURS = 6  # of a project that decides events: after the retraining
_RACING_PART = 24  # one row in 24 is requested in hours with racing writes

_DueRows = dict[str, list[Row]]  # rows of an hour by model
_Batch = tuple[str, list[Row]]


@dataclass(frozen=True, kw_only=True)
class Hour:
    """One hour of the test period.

    Args:
        start_us: its beginning, microseconds.
        rows: rows by model.
    """

    start_us: int
    rows: Mapping[str, slice]


@dataclass(kw_only=True)
class Hours:
    """Moves through the test period.

    Args:
        pool: two threads: one publishes, one sends events.
        decisions: of models that decide on events, which nobody requests.
        outcomes: of the models that learn from them.
    """

    tour: TourState
    client: Client
    feed: Feed
    worker: StreamWorker
    pool: ThreadPoolExecutor
    decisions: Sequence[ReceivedDecisions] = ()
    outcomes: Mapping[str, SentOutcomes] = field(default_factory=dict)
    published: int = 0
    killed: str = ""

    def __post_init__(self) -> None:
        """Split the test period into its hours."""
        decided = {item.outcomes.spec.name for item in self.decisions}
        self._requested = [spec for spec in self.tour.served if spec.name not in decided]
        times = {spec.name: self.tour.rows[spec.name][TIME].to_numpy() for spec in self._requested or self.tour.served}
        self._hours = list(hours_of(times))
        half, last = len(self._hours) // 2, _LAST_HOURS if self.decisions else 0
        self._last = max(half + 1, len(self._hours) - last)
        middle = self._hours[half : self._last][:_DAY_HOURS]
        self._sampled = max(middle, key=lambda hour: sum(rows.stop - rows.start for rows in hour.rows.values()))
        self._total = self._remaining = sum(self.tour.rows[spec.name].num_rows for spec in self._requested)

    def run(self) -> None:
        """Run the test period; ``finish`` runs its last hours."""
        tour = self.tour
        with tour.stage("Test period, hour by hour") as print_line:
            self._run_hours(self._hours[: self._last])
            print_line(
                f"{self.published:,} rows materialized in steps, {tour.facts['predictions']:,} predictions over HTTP"
            )
            for item in self.decisions:
                print_line(item.line())
            self._print_events(print_line)
        with tour.stage("Ten predictions of one hour, with the age of the rows that they read") as print_line:
            for line in tour.sample:
                print_line(line)

    def finish(self) -> None:
        """Run the last hours, whose events the retrained versions decide, and print the quality of the test period."""
        if self.decisions:
            self._decide_last()
        with self.tour.stage("Quality of the test period, by the labels that have become known") as print_line:
            _live_quality(self.tour, print_line)

    def _decide_last(self) -> None:
        """Run the last hours, and prove one decision of each action."""
        tour = self.tour
        with tour.stage("The last hours, with the retrained versions") as print_line:
            before = [set(item.decisions) for item in self.decisions]
            self._run_hours(self._hours[self._last :])
            for item, known in zip(self.decisions, before, strict=True):
                item.wait(self.worker.check)
                latest = [decision for number, decision in item.decisions.items() if number not in known]
                versions = dict(sorted(Counter(decision["version"] for decision in latest).items()))
                counts = ", ".join(f"{count:,} by version {version}" for version, count in versions.items())
                print_line(f"{item.stream.name}: {counts or 'none'}")
                proofs = [prove(tour, each) for each in {each["action"]: each for each in latest}.values()]
                for line, _ in proofs:
                    print_line(line)
                facts = {"latest": versions, "proven": [is_proven for _, is_proven in proofs]}
                tour.scores[item.outcomes.spec.name] = item.scores().tolist()
                tour.facts.setdefault("decisions", {})[item.stream.name] = item.facts() | facts

    def _run_hours(self, hours: Sequence[Hour]) -> None:
        tour, killing = self.tour, self._hours[len(self._hours) // 3]
        with progress_bar(tour.console) as bar:
            for hour in bar.track(hours, description="hours"):
                due = {spec.name: self._due(spec, hour) for spec in self._requested if spec.name in hour.rows}
                self._remaining -= sum(map(len, due.values()))
                racing = bool(due) and self._remaining < self._total // _RACING_PART
                self._run_hour(hour, due, racing=racing, killing=hour is killing)
                if due and hour is self._sampled:
                    _sample(tour, self.client, due)
        tour.facts["predictions"] = sum(len(tour.scores.get(spec.name, ())) for spec in self._requested)
        tour.facts["asked"] = {name: len(rows) for name, rows in tour.asked.items()}

    def _due(self, spec: ModelSpec, hour: Hour) -> list[Row]:
        part = hour.rows[spec.name]
        rows = self.tour.rows[spec.name].slice(part.start, part.stop - part.start)
        return json_rows(self.tour.plan_of(spec), rows)

    def _run_hour(self, hour: Hour, due: _DueRows, *, racing: bool, killing: bool) -> None:
        tour = self.tour
        tour.clock.set(hour.start_us)
        if killing and self.feed:
            self._interrupt(hour, due)
        else:
            self._move(hour, self._recent(due) if racing else None)
        for item in self.decisions:
            item.receive()
        for outcomes in self.outcomes.values():
            outcomes.send(self.client, hour.start_us)
        for name, rows in due.items():
            reply = self.client.predict(rows, model=name)
            if name in self.outcomes:
                first = len(tour.asked.get(name, ()))
                self.outcomes[name].add(range(first, first + len(rows)), [item.id for item in reply], reply.t_us)
            tour.scores.setdefault(name, []).extend(item.scores or item.score for item in reply)
            tour.asked.setdefault(name, []).extend(rows)

    def _publish(self) -> None:
        self.published += sum(item.accepted for item in self.tour.project.materialize())

    def _apply(self, hour: Hour) -> None:
        self.feed.send(hour.start_us)
        self.feed.wait(self.worker.check)

    def _move(self, hour: Hour, batch: _Batch | None) -> None:
        """Materialize rows and apply events in parallel.

        Args:
            batch: rows to request without pause meanwhile, so that reads race both writes; None: no requests.
        """
        tasks = [self.pool.submit(self._publish), self.pool.submit(self._apply, hour)]
        while batch is not None and not all(task.done() for task in tasks):
            self._request(batch)
        for task in tasks:
            task.result()

    def _interrupt(self, hour: Hour, due: _DueRows) -> None:
        """Kill the worker while events arrive, request predictions without it, and start it again."""
        sending = self.pool.submit(self.feed.send, hour.start_us)
        pid = self.worker.kill()
        sent = sending.result()
        self._publish()
        if due:
            self._request(self._recent(due))
        self.worker.start()
        self.feed.wait(self.worker.check)
        when = f"{from_us(hour.start_us):%m-%d %H:%M}"
        self.killed = f"{when}: stream worker {pid} killed (kill -9) while {sent} events arrived, then started again"

    def _recent(self, due: _DueRows) -> _Batch:
        """Return the latest rows of the hour's first model."""
        name, rows = next(iter(due.items()))
        return name, list(islice(reversed(self.tour.asked.get(name, [])), RACE_ROWS)) or rows

    def _request(self, batch: _Batch) -> None:
        name, rows = batch
        self.client.predict(rows, model=name)

    def _print_events(self, print_line: PrintLine) -> None:
        if self.killed:
            print_line(self.killed)
        for result in self.feed.results():
            print_line(result.line())
            for reason, count in result.reasons.most_common():
                print_line(f"  {count} x {reason}")
            self.tour.facts.setdefault("events", {})[result.source] = {
                "sent": result.sent,
                "accepted": result.accepted,
                "late": result.late,
                "duplicates": result.duplicates,
                "quarantined": sum(result.reasons.values()),
            }


def hours_of(times: Mapping[str, npt.NDArray[np.int64]]) -> Iterator[Hour]:
    """Yield the hours with rows.

    Args:
        times: prediction times by model, ascending, microseconds.

    >>> hour = HOUR_US
    >>> found = hours_of({"a": np.array([5 * hour, 5 * hour + 1, 7 * hour]), "b": np.array([7 * hour + 3])})
    >>> [(each.start_us // hour, sorted(each.rows)) for each in found]
    [(5, ['a']), (7, ['a', 'b'])]
    """
    hours = {name: t // HOUR_US for name, t in times.items()}
    for number in sorted({int(hour) for item in hours.values() for hour in np.unique(item)}):
        edges = {name: np.searchsorted(item, [number, number + 1]).tolist() for name, item in hours.items()}
        rows = {name: slice(first, last) for name, (first, last) in edges.items() if first < last}
        yield Hour(start_us=number * HOUR_US, rows=rows)


def _live_quality(tour: TourState, print_line: PrintLine) -> None:
    live = {spec.name: _labelled(tour, spec) for spec in tour.served}
    scored = {name: scores for name, scores in live.items() if scores.labels.size}
    for spec in tour.served:
        if spec.name not in scored:
            print_line(f"{spec.name} live: no label is known yet")
            continue
        own = scored[spec.name]
        metrics = evaluate(own.labels, own.scores, task=spec.task, groups=own.groups)
        print_line(f"{spec.name} live, {own.labels.size:,} rows with a known label:")
        for line in quality_lines(metrics):
            print_line(f"  {line}")
        names = ("auc", "log_loss", "base_rate", "calibration_error", "rmse")
        tour.facts.setdefault("live", {})[spec.name] = {name: metrics[name] for name in names if name in metrics}
    for names_of_both, gain in gains(
        [s for s in tour.served if s.name in scored], tour.project.applied.plan, scored
    ).items():
        print_line(f"{names_of_both} live: {gain_text(gain)}")
        tour.facts["live_gain"] = asdict(gain)
    print_line("(these weeks are later than the test rows above: a difference is season, not skew, as replay proves)")
    first = tour.facts.get("live", {}).get(tour.served[0].name, {})
    tour.facts |= {name: first[name] for name in ("auc", "log_loss", "base_rate") if name in first}


def _labelled(tour: TourState, spec: ModelSpec) -> ScoredRows:
    """Return the scores of a model with the known labels of its table."""
    scores = np.array(tour.scores.get(spec.name, []))
    rows = tour.rows[spec.name].slice(0, len(scores))
    labels = rows[LABEL].to_numpy(zero_copy_only=False).astype(np.float64)
    known = ~np.isnan(labels) & pc.is_valid(rows[KNOWN]).to_numpy(zero_copy_only=False).astype(np.bool_)
    if scores.ndim == 1:
        known &= ~np.isnan(scores)  # an event that was not decided
    groups = None if spec.group is None else SliceColumn.of(rows[spec.group]).codes[known]
    return ScoredRows(labels=labels[known], scores=scores[known], groups=groups)


def _sample(tour: TourState, client: Client, due: _DueRows) -> None:
    name, rows = next(iter(due.items()))
    spec = tour.project.applied.model(name)
    reply = client.predict(rows[:_SAMPLE_ROWS], model=name, features=True)
    keys = [column.name for column in tour.plan_of(spec).join_keys]
    for row, item in zip(rows, reply, strict=False):
        ages = ", ".join(f"{view} {_age(read)}" for view, read in item.views.items())
        key = " ".join(str(row[name]) for name in keys if name in row)
        tour.sample.append(f"{from_us(reply.t_us):%m-%d %H:%M} {key}: {item.score:.3f}  ({ages})")


def _age(read: ReplyView) -> str:
    return read.status if read.status != "PRESENT" or read.age_s is None else duration_text(read.age_s)
