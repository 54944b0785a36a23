"""The weeks of the story, hour by hour: move the clock, run due jobs, request predictions, and record the timeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from skewless.client import Client
from skewless.contract.clock import from_us
from skewless.infra.models.packages.store import Aliases, Traffic
from skewless.infra.models.rollout.counts import read_counts
from skewless.infra.platform.jobs.run import Run
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.labels import KNOWN, LABEL
from skewless.training.scheduling.leader_term import LeaderTerm
from skewless_demo.tour_state import HOUR_US, Row, TourState, json_rows, progress_bar, wait_for

OnLine = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event of the story.

    Args:
        kind: ``injected`` fault, ``stopped`` by a gate, ``repaired``, ``drift``, ``cause``, ``retrain``, ``traffic``,
            ``alias`` or ``proof``.
    """

    at_us: int
    kind: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return the event in a line."""
        return f"{from_us(self.at_us):%Y-%m-%d %H:%MZ}  {self.kind:8} {self.text}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"at": from_us(self.at_us).isoformat(), "kind": self.kind, "text": self.text, "facts": self.facts}


@dataclass(kw_only=True)
class RunTimeline:
    """Records events of runs, and changes of traffic and alias.

    Args:
        on_line: called with the line of each event.
    """

    model: str
    traffic: Traffic
    aliases: Aliases
    on_line: OnLine
    events: list[Event] = field(default_factory=list)
    runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    _policies: int = 0
    _moves: int = 0
    _was_stopped: bool = False
    _was_drifted: bool = False

    def add(self, at_us: int, kind: str, text: str, **facts: Any) -> None:  # noqa: ANN401 - JSON
        """Record an event, and print it."""
        event = Event(at_us=at_us, kind=kind, text=text, facts=facts)
        self.events.append(event)
        self.on_line(event.line())

    def record_run(self, run: Run) -> None:
        """Record the event of an ended run."""
        job = run.id.job.partition(" ")[0]
        self.runs[job, run.state] += 1
        recorders = {"materialize": self._record_gate, "drift": self._record_drift, "triggers": self._record_causes}
        recorders |= {"retrain": self._record_retraining, "replay": self._record_proof, "parity": self._record_proof}
        if job in recorders:
            recorders[job](run)
        elif run.state != "done":
            self.add(run.started_us, job, f"{run.state}: {run.error}")

    def record_changes(self) -> bool:
        """Record changes of traffic and alias; return whether there were any."""
        policies = self.traffic.history(self.model)[self._policies :]
        moves = self.aliases.history(self.model, "champion")[self._moves :]
        self._policies += len(policies)
        self._moves += len(moves)
        for policy in policies:
            share = f", {policy.share:.0%} to {policy.challenger}" if policy.share else ""
            self.add(policy.since_us, "traffic", f"{policy.phase}{share}: {policy.reason}", **policy.as_dict())
        for move in moves:
            self.add(move.at_us, "alias", f"champion is {move.to}: {move.reason}", version=move.to)
        return bool(policies or moves)

    def _record_gate(self, run: Run) -> None:
        is_stopped = run.state == "refused"
        if is_stopped and not self._was_stopped:
            self.add(run.started_us, "stopped", run.error or "", run=str(run.id))
        if self._was_stopped and run.state == "done":
            self.add(run.started_us, "repaired", "the corrected rows pass the gate and are accepted")
        self._was_stopped = is_stopped

    def _record_drift(self, run: Run) -> None:
        is_drifted = run.outputs.get("verdict") == "drifted"
        if is_drifted and not self._was_drifted:
            names = ", ".join(list(run.outputs.get("drifted", ()))[:4])
            share = run.outputs.get("share", 0.0)
            self.add(run.started_us, "drift", f"{share:.0%} of the features have drifted, mainly {names}", share=share)
        self._was_drifted = is_drifted

    def _record_causes(self, run: Run) -> None:
        for cause in run.outputs.get("causes", ()):
            self.add(run.started_us, "cause", cause["sentence"], **cause)

    def _record_retraining(self, run: Run) -> None:
        text = run.error or _decision(run)
        self.add(run.started_us, "retrain", f"{run.cause}; {text}", outputs=dict(run.outputs))

    def _record_proof(self, run: Run) -> None:
        if run.state != "done":
            self.add(run.started_us, "proof", f"{run.id.job} {run.state}: {run.error}")


def _decision(run: Run) -> str:
    for model in run.outputs.get("models", ()):
        return f"version {model.get('version')}: {model.get('reason') or model.get('decision')}"
    return f"{run.state}"


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
            for number, hour_us in enumerate(bar.track(hours, description="hours")):
                first, last = times.searchsorted([hour_us, hour_us + HOUR_US]).tolist()
                self._run_jobs(hour_us, number)
                part = self.rows.slice(first, last - first)
                self._request(json_rows(plan, part), part)

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
        for _ in wait_for("server", "does not load a change of traffic"):
            served = self.client.model(self.model)
            traffic = served.raw["traffic"]
            if served.version == champion and (traffic["number"] if traffic else None) == number:
                return

    def _wait_for_counts(self) -> None:
        """Wait until the server has written its counts."""
        policy = self.timeline.traffic.get(self.model)
        if policy is None:
            return
        for _ in wait_for("server", "does not write its counts"):
            counts = read_counts(self.tour.project.state, self.model, policy.number)
            rows = {version: item.rows for version, item in counts.items()}
            arms = rows.get(policy.champion, 0) + (rows.get(policy.challenger or "", 0) if policy.share else 0)
            if arms >= self._answered:
                return
