"""Contestants: each runs in a fresh process, they take turns, and must agree before they are compared.

An entrant is a top-level function ``def name(meter: Meter, *, ...) -> str`` with plain keyword arguments. It
prepares (imports, files, connections), does its work within ``meter.lap()``, and returns the digest of its
result (``benchmarks.digest``). Import heavy peers inside it: the parent imports its module too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.meter import Report

_ROOT = Path(__file__).parents[1]
_TAIL = 4_000

Quantity = Callable[[Report], float]


class ContestantError(RuntimeError):
    """A contestant failed, or came to another result than the others."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One way to do a work.

    Args:
        entrant: the function to run in the child; see the module's docstring.
        arguments: its keyword arguments, plain JSON values.
        rounds: how many rounds it takes part in; None: all. For peers that take minutes.
        timeout_s: when a child counts as stuck.
        python: interpreter of the environment that it needs (``benchmarks.environments``); None: ours.
        code: checkout whose ``skewless`` it imports; None: this one.
    """

    name: str
    entrant: Callable[..., str]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    rounds: int | None = None
    timeout_s: float = 1_200
    python: str | None = None
    code: Path | None = None

    def run(self) -> Report:
        """Run once in a fresh process and return what it measured.

        Raises:
            ContestantError: it failed or did not end in time.
        """
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            function = [self.entrant.__module__, self.entrant.__name__]
            command = [
                self.python or sys.executable,
                "-m",
                "benchmarks.child",
                *function,
                json.dumps(self.arguments),
                str(report),
            ]
            environment = {**os.environ, "FEAST_USAGE": "False", "PYTHONHASHSEED": "0"}
            root = _ROOT
            if self.code is not None:  # our benchmarks with its code
                root = Path(folder)
                (root / "benchmarks").symlink_to(_ROOT / "benchmarks")
                (root / "skewless").symlink_to(self.code / "skewless")
                environment["PYTHONPATH"] = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
            try:
                done = subprocess.run(
                    command, cwd=root, env=environment, capture_output=True, timeout=self.timeout_s, check=False
                )
            except subprocess.TimeoutExpired as error:
                raise ContestantError(f"{self.name} did not end within {self.timeout_s:g} s") from error
            if done.returncode:
                raise ContestantError(f"{self.name} failed:\n{done.stderr.decode(errors='replace')[-_TAIL:]}")
            return Report.from_dict(json.loads(report.read_text()))


@dataclass(frozen=True, kw_only=True)
class Race:
    """The reports of all contestants, one per round."""

    reports: Mapping[str, Sequence[Report]]

    def median(self, name: str, quantity: Quantity = Report.seconds) -> float:
        """Return a contestant's median of a quantity."""
        return statistics.median(quantity(report) for report in self.reports[name])

    def ratio(self, name: str, peer: str, quantity: Quantity = Report.seconds) -> float:
        """Return the median over the rounds of a contestant's quantity over a peer's.

        A contestant that sat out the later rounds is compared by its last one.
        """
        own, others = self.reports[name], self.reports[peer]
        rounds = max(len(own), len(others))
        return statistics.median(
            quantity(own[min(i, len(own) - 1)]) / quantity(others[min(i, len(others) - 1)]) for i in range(rounds)
        )

    def fact(self, name: str, fact: str) -> float:
        """Return a contestant's median of a noted number."""
        return self.median(name, lambda report: report.facts[fact])


def race(contestants: Sequence[Contestant], rounds: int = 3) -> Race:
    """Run the contestants in turn, round by round (ABAB), checking that all results are equal.

    Raises:
        ContestantError: one failed, or its result differs from the first contestant's.
    """
    reports: dict[str, list[Report]] = {contestant.name: [] for contestant in contestants}
    first: str | None = None
    for turn in range(rounds):
        for contestant in contestants:
            if contestant.rounds is not None and turn >= contestant.rounds:
                continue
            report = contestant.run()
            first = report.digest if first is None else first
            if report.digest != first:
                raise ContestantError(f"{contestant.name} has another result than {contestants[0].name}")
            reports[contestant.name].append(report)
    return Race(reports=reports)
