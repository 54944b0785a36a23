"""What happened, when and why: what the story tells in the end, taken from the scheduler's runs and the traffic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from skewless.contract.clock import from_us
from skewless.infra.jobs.run import Run
from skewless.infra.packages.aliases import Aliases
from skewless.infra.rollout.traffic import Traffic

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing worth telling.

    Args:
        kind: ``stopped`` by a gate, ``drift``, ``retrain``, ``traffic``, ``alias``, ``proof`` or ``planted`` by the
            story itself.
    """

    at_us: int
    kind: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """Return this for people."""
        return f"{from_us(self.at_us):%Y-%m-%d %H:%M}  {self.kind:8} {self.text}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"at": from_us(self.at_us).isoformat(), "kind": self.kind, "text": self.text, "facts": self.facts}


@dataclass(kw_only=True)
class RunTimeline:
    """Hears of every run, and looks for changes of traffic and alias.

    Args:
        tell: shows a line at once.
    """

    model: str
    traffic: Traffic
    aliases: Aliases
    tell: Tell
    events: list[Event] = field(default_factory=list)
    runs: Counter[tuple[str, str]] = field(default_factory=Counter)
    _policies: int = 0
    _moves: int = 0
    _was_stopped: bool = False
    _was_drifted: bool = False

    def add(self, at_us: int, kind: str, text: str, **facts: Any) -> None:  # noqa: ANN401 - JSON
        """Keep an event, and show it."""
        event = Event(at_us=at_us, kind=kind, text=text, facts=facts)
        self.events.append(event)
        self.tell(event.line())

    def hear(self, run: Run) -> None:
        """Take note of a run that has ended."""
        job = run.id.job.partition(" ")[0]
        self.runs[job, run.state] += 1
        told = {"materialize": self._published, "drift": self._drift, "triggers": self._triggers}
        told |= {"retrain": self._retrained, "replay": self._proven, "parity": self._proven}
        if job in told:
            told[job](run)
        elif run.state != "done":
            self.add(run.started_us, job, f"{run.state}: {run.error}")

    def look(self) -> bool:
        """Take note of changes of traffic and alias; say whether there were any."""
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

    def _published(self, run: Run) -> None:
        stopped = run.state == "refused"
        if stopped and not self._was_stopped:
            self.add(run.started_us, "stopped", run.error or "", run=str(run.id))
        if self._was_stopped and run.state == "done":
            self.add(run.started_us, "mended", "what was refused came right, and was published")
        self._was_stopped = stopped

    def _drift(self, run: Run) -> None:
        drifted = run.outputs.get("verdict") == "drifted"
        if drifted and not self._was_drifted:
            names = ", ".join(list(run.outputs.get("drifted", ()))[:4])
            share = run.outputs.get("share", 0.0)
            self.add(run.started_us, "drift", f"{share:.0%} of the features, first of all {names}", share=share)
        self._was_drifted = drifted

    def _triggers(self, run: Run) -> None:
        for cause in run.outputs.get("causes", ()):
            self.add(run.started_us, "cause", cause["sentence"], **cause)

    def _retrained(self, run: Run) -> None:
        text = run.error or _decision(run)
        self.add(run.started_us, "retrain", f"{run.cause}; {text}", outputs=dict(run.outputs))

    def _proven(self, run: Run) -> None:
        if run.state != "done":
            self.add(run.started_us, "proof", f"{run.id.job} {run.state}: {run.error}")


def _decision(run: Run) -> str:
    for model in run.outputs.get("models", ()):
        return f"version {model.get('version')}: {model.get('reason') or model.get('decision')}"
    return f"{run.state}"
