"""Simulates the flights' year with ``skewless demo --drift`` and writes ``docs/year.md``: decisions and reasons.

::

    python -m benchmarks.year
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from benchmarks.plot import Panel, draw

ROOT = Path(__file__).parents[1]
AFTER_WEEKS, DAYS = 8, 301  # of the 52 weeks: first the training data, then the simulation
_KINDS = {
    "injected": "the story",
    "stopped": "materialize",
    "repaired": "materialize",
    "drift": "drift",
    "cause": "triggers",
    "retrain": "retrain",
    "traffic": "rollout",
    "alias": "rollout",
    "proof": "proof",
}
_CAPTION = "week; lower is better"
_TICK_WEEKS = 10


def main() -> None:
    """Run the year, which takes half an hour on two idle cores, and write page and plot."""
    command = [sys.executable, "-m", "skewless.cli", "demo", "--drift", "--repo", "feature_repo"]
    command += ["--after", str(AFTER_WEEKS), "--days", str(DAYS)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    facts = json.loads(done.stdout.splitlines()[-1])
    (ROOT / "docs" / "year.md").write_text("\n".join(_page(facts)) + "\n")
    (ROOT / "docs" / "year.svg").write_text(_plot(facts["quality"]))


def _page(facts: Mapping[str, Any]) -> Iterator[str]:
    living, alone = facts["quality"]["delay"], facts["quality"]["delay-alone"]
    weeks = len(living)
    won = sum(a["log_loss"] < b["log_loss"] for a, b in zip(living, alone, strict=True))
    yield "# A year of the scheduler"
    yield ""
    yield from _filled(
        "See the decisions of the scheduler in a simulated year of flights, and the effect of retraining."
        " `python -m benchmarks.year` simulates the year hour by hour with a moved clock, and writes this page."
        f" The scheduler runs due jobs, a server answers {facts['predictions']:,} predictions over HTTP, and labels"
        " come when flights land. The model `delay` has triggers and a rollout (`feature_repo/story_models.py`)."
        " `delay-alone` is its first version, which gets the same requests and is never retrained."
    )
    yield ""
    yield "![Log loss week by week](year.svg)"
    yield ""
    first, second = _mean(living), _mean(alone)
    yield from _filled(
        f"In {won} of {weeks} weeks the retrained model was better; its mean log loss is {first:.4f}, that of the model"
        f" left alone {second:.4f}. Replay compared {facts['open_replay']:,} logged predictions, those of shadows too:"
        f" {facts['different_bits']} differ in a bit."
    )
    yield ""
    yield "## Runs"
    yield ""
    yield "| job | runs |"
    yield "|---|---|"
    for job, runs in _jobs(facts["runs"]):
        yield f"| `{job}` | {runs} |"
    yield ""
    yield "## Decisions"
    yield ""
    yield "| when (UTC) | job | decision |"
    yield "|---|---|---|"
    for event in facts["events"]:
        when, text = datetime.fromisoformat(event["at"]), event["text"].replace("|", "\\|").split(", such as", 1)[0]
        yield f"| {when:%Y-%m-%d %H:%M} | {_KINDS.get(event['kind'], event['kind'])} | {text} |"


def _jobs(runs: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    by_job: dict[str, Counter[str]] = {}
    for name, count in runs.items():
        job, _, state = name.partition(" ")
        by_job.setdefault(job, Counter())[state] += count
    for job, states in sorted(by_job.items()):
        yield job, ", ".join(f"{count:,} {state}" for state, count in states.most_common())


def _plot(quality: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    weeks = [week["since"][:10] for week in next(iter(quality.values()))]
    ticks = [day if i % _TICK_WEEKS == 0 else "" for i, day in enumerate(weeks)]
    lines = {name: [week["log_loss"] for week in rows] for name, rows in quality.items()}
    title = "log loss, retrained and left alone"
    return draw([Panel(title=title, x=range(len(weeks)), x_title=_CAPTION, lines=lines, ticks=ticks)], columns=1)


def _mean(weeks: Sequence[Mapping[str, Any]]) -> float:
    return float(np.average([week["log_loss"] for week in weeks], weights=[week["labels"] for week in weeks]))


def _filled(text: str) -> Iterator[str]:
    yield from wrap(text, 120)


if __name__ == "__main__":
    main()
