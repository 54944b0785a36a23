"""The weeks of the story, hour by hour: move the clock, run due jobs, request predictions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from skewless.client import Client
from skewless.contract.errors import PlaceError
from skewless.demo.story.run_timeline import RunTimeline
from skewless.demo.tour_state import HOUR_US, START_SECONDS, Row, TourState, json_rows, progress_bar
from skewless.infra.offline.as_of import TIME
from skewless.infra.offline.labels import KNOWN, LABEL
from skewless.infra.rollout.counts import read_counts
from skewless.training.scheduling.leader_term import LeaderTerm

_STEP_HOURS = 6  # between two steps of a rollout
_FEEDBACK_PART = 10  # of the flights, one in 10 has its outcome sent to POST /feedback


@dataclass(kw_only=True)
class Weeks:
    """Moves through the weeks.

    Args:
        model: the retrained model.
        control: a model that gets the same requests and is never retrained.
        rows: label rows, in the order of their prediction times.
        term: the scheduler, while it holds the lease.
        feature: of the faulty table.
        values: values of that feature, one row per hour; None: missing.
    """

    tour: TourState
    client: Client
    term: LeaderTerm
    timeline: RunTimeline
    model: str
    control: str
    rows: pa.Table
    feature: str
    predictions: int = 0
    outcomes_sent: int = 0
    values: list[float | None] = field(default_factory=list)
    _outcomes: list[tuple[int, str, float]] = field(default_factory=list)
    _answered: int = 0

    def run(self, since_us: int, until_us: int) -> None:
        """Run a period of complete hours."""
        hours = range(since_us, until_us, HOUR_US)
        times = self.rows[TIME].to_numpy()
        plan = self.tour.project.applied.plan.select_service(self.tour.project.models[0].service)
        with progress_bar(self.tour.console) as bar:
            task = bar.add_task("hours", total=len(hours))
            for number, hour_us in enumerate(hours):
                first, last = times.searchsorted([hour_us, hour_us + HOUR_US]).tolist()
                self._run_jobs(hour_us, number)
                part = self.rows.slice(first, last - first)
                self._request(json_rows(plan, part), part)
                bar.update(task, completed=number + 1)

    @property
    def is_settled(self) -> bool:
        """Whether a second version is champion, and no rollout is in progress."""
        return len(self.timeline.aliases.history(self.model, "champion")) > 1 and not self._in_rollout()

    def record_changes(self) -> None:
        """Record changes of the traffic, and wait until the server has loaded them."""
        if self.timeline.record_changes():
            self._wait_for_server()

    def _run_jobs(self, hour_us: int, number: int) -> None:
        self.tour.clock.set(hour_us)
        if number % _STEP_HOURS == 0 and self._in_rollout():
            self._wait_for_counts()
        while self.term.step():
            self.record_changes()
        self.record_changes()
        self._send_outcomes(hour_us)

    def _request(self, due: list[Row], rows: pa.Table) -> None:
        """Request each flight alone during a rollout, so that both versions get some; else all flights of an hour."""
        if not due:
            return
        first = self.client.predict_one(due[0], model=self.model, features=True)
        self.values.append(first.features[self.feature])
        requests = [[row] for row in due] if self._in_rollout() else [due]
        replies = [item for request in requests for item in self.client.predict(request, model=self.model)]
        self.predictions += len(replies) + 1 + len(self.client.predict([due[0], *due], model=self.control))
        self._answered += len(replies) + 1
        known, labels = rows[KNOWN].to_pylist(), rows[LABEL].to_pylist()
        for i in range(0, len(replies), _FEEDBACK_PART):
            if known[i] is not None and labels[i] is not None:
                self._outcomes.append((int(known[i]), replies[i].id, float(labels[i])))

    def _send_outcomes(self, now_us: int) -> None:
        """Send the outcomes that have become known."""
        due = [(name, label) for known_us, name, label in self._outcomes if known_us <= now_us]
        if due:
            self._outcomes = [item for item in self._outcomes if item[0] > now_us]
            outcomes = [{"prediction_id": name, "label": label} for name, label in due]
            self.outcomes_sent += self.client.feedback(outcomes)

    def _in_rollout(self) -> bool:
        policy = self.timeline.traffic.get(self.model)
        return policy is not None and policy.challenger is not None

    def _wait_for_server(self) -> None:
        """Wait until the server has loaded the current alias and policy."""
        self._answered = 0
        champion = self.timeline.aliases.get(self.model, "champion")
        policy = self.timeline.traffic.get(self.model)
        number = policy.number if policy is not None and policy.challenger is not None else None
        for _ in _tries("server", "does not load a change of traffic"):
            served = self.client.model(self.model)
            traffic = served.raw["traffic"]
            if served.version == champion and (traffic["number"] if traffic else None) == number:
                return

    def _wait_for_counts(self) -> None:
        """Wait until the server has written its counts."""
        policy = self.timeline.traffic.get(self.model)
        if policy is None:
            return
        for _ in _tries("server", "does not write its counts"):
            counts = read_counts(self.tour.project.state, self.model, policy.number)
            rows = {version: item.rows for version, item in counts.items()}
            arms = rows.get(policy.champion, 0) + (rows.get(policy.challenger or "", 0) if policy.share else 0)
            if arms >= self._answered:
                return


def _tries(thing: str, problem: str) -> Iterator[None]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        yield None
        time.sleep(0.05)
    raise PlaceError(thing, problem, fix="read server.log in the state folder")
