"""The weeks of the story, hour by hour: the clock moves, the scheduler does what is due, flights are asked for."""

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

_LOOK_HOURS = 6  # a rollout is looked at so often
_TOLD_PART = 10  # of the flights, one in so many is told by POST /feedback besides


@dataclass(kw_only=True)
class Weeks:
    """Moves through the weeks.

    Args:
        model: that lives.
        beside: that is asked the same and left alone.
        rows: label rows, in the order of their prediction times.
        shift: the scheduler, as the holder of its lease.
        feature: of the table that the story spoils.
        seen: what the model saw of it, one row an hour; None was missing.
    """

    walk: TourState
    client: Client
    shift: LeaderTerm
    chronicle: RunTimeline
    model: str
    beside: str
    rows: pa.Table
    feature: str
    asked: int = 0
    told: int = 0
    seen: list[float | None] = field(default_factory=list)
    _untold: list[tuple[int, str, float]] = field(default_factory=list)
    _answered: int = 0

    def live(self, since_us: int, until_us: int) -> None:
        """Live through a stretch of time, whole hours."""
        hours = range(since_us, until_us, HOUR_US)
        times = self.rows[TIME].to_numpy()
        plan = self.walk.project.applied.plan.select_service(self.walk.project.models[0].service)
        with progress_bar(self.walk.console) as bar:
            task = bar.add_task("hours", total=len(hours))
            for number, moment in enumerate(hours):
                first, last = times.searchsorted([moment, moment + HOUR_US]).tolist()
                self._hour(moment, number)
                part = self.rows.slice(first, last - first)
                self._ask(json_rows(plan, part), part)
                bar.update(task, completed=number + 1)

    @property
    def is_settled(self) -> bool:
        """Whether another version than the first is champion, and none is taking over."""
        return len(self.chronicle.aliases.history(self.model, "champion")) > 1 and not self._in_rollout()

    def take_note(self) -> None:
        """Take note of what changed the traffic, and wait until the server answers so."""
        if self.chronicle.look():
            self._wait_for_server()

    def _hour(self, moment: int, number: int) -> None:
        self.walk.clock.set(moment)
        if number % _LOOK_HOURS == 0 and self._in_rollout():
            self._wait_for_vitals()
        while self.shift.step():
            self.take_note()
        self.take_note()
        self._tell(moment)

    def _ask(self, due: list[Row], rows: pa.Table) -> None:
        """Ask for each flight by itself while two versions share the traffic, else for all of an hour at once."""
        if not due:
            return
        seen = self.client.predict_one(due[0], model=self.model, features=True)
        self.seen.append(seen.features[self.feature])
        requests = [[row] for row in due] if self._in_rollout() else [due]
        replies = [item for request in requests for item in self.client.predict(request, model=self.model)]
        self.asked += len(replies) + 1 + len(self.client.predict([due[0], *due], model=self.beside))
        self._answered += len(replies) + 1
        known, labels = rows[KNOWN].to_pylist(), rows[LABEL].to_pylist()
        for place in range(0, len(replies), _TOLD_PART):
            if known[place] is not None and labels[place] is not None:
                self._untold.append((int(known[place]), replies[place].id, float(labels[place])))

    def _tell(self, moment: int) -> None:
        """Send the outcomes that have become known."""
        due = [(name, label) for known, name, label in self._untold if known <= moment]
        if due:
            self._untold = [item for item in self._untold if item[0] > moment]
            self.told += self.client.feedback([{"prediction_id": name, "label": label} for name, label in due])

    def _in_rollout(self) -> bool:
        policy = self.chronicle.traffic.get(self.model)
        return policy is not None and policy.challenger is not None

    def _wait_for_server(self) -> None:
        """Wait until the server answers as alias and policy say."""
        self._answered = 0
        wanted = self.chronicle.aliases.get(self.model, "champion")
        policy = self.chronicle.traffic.get(self.model)
        number = policy.number if policy is not None and policy.challenger is not None else None
        for _ in _tries("server", "does not take up a change of traffic"):
            served = self.client.model(self.model)
            traffic = served.raw["traffic"]
            if served.version == wanted and (traffic["number"] if traffic else None) == number:
                return

    def _wait_for_vitals(self) -> None:
        """Wait until what the server has counted is on the disk."""
        policy = self.chronicle.traffic.get(self.model)
        if policy is None:
            return
        for _ in _tries("server", "does not write its vitals"):
            counted = read_counts(self.walk.project.state, self.model, policy.number)
            rows = {version: vitals.rows for version, vitals in counted.items()}
            arms = rows.get(policy.champion, 0) + (rows.get(policy.challenger or "", 0) if policy.share else 0)
            if arms >= self._answered:
                return


def _tries(thing: str, problem: str) -> Iterator[None]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        yield None
        time.sleep(0.05)
    raise PlaceError(thing, problem, fix="see server.log in the state folder")
