"""The timeline of the story: events with time and cause, from the scheduler's runs and the traffic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from skewless.contract.clock import from_us
from skewless.infra.jobs.run import Run
from skewless.infra.packages.aliases import Aliases
from skewless.infra.rollout.traffic import Traffic

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

    def of(self, kind: str) -> list[Event]:
        """Return the events of a kind."""
        return [event for event in self.events if event.kind == kind]

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
