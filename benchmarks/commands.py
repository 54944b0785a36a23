"""Commands that change nothing: wall and CPU time of each on the project that ``skewless init`` writes.

``BENCH_BEFORE=FOLDER`` names a checkout of an older commit (``git worktree add FOLDER COMMIT``): its commands run in
turn with ours, on a project of their own, by the same Python and libraries. The project is the one that the commit's
own ``init`` writes; a template with a stream has more views and models, so the older commands have less to do.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.programs import ProgramError
from benchmarks.result import Result
from benchmarks.scale import rounds
from benchmarks.server import own_server

ROUNDS = 10
_NAME = "commands"
_PROGRAM = "from skewless.cli import main; main()"
_ROW = '{"card_id": 9007199254740993, "shop_id": "shop-07", "amount": 12.5, "paid_at": "2025-01-31T12:00:00Z"}'
_TAIL = 2_000
# By command, seconds of wall time on an idle machine; None: without a limit.
LIMITS: Mapping[str, float | None] = {
    "--help": 0.15,
    "plan": 1.0,
    "apply": 1.0,
    "status": 0.6,
    "doctor": 0.6,
    "get": 0.6,
    "why": 0.6,
    "predict": 0.6,
    "versions": None,
    "validate": None,
}


@dataclass(frozen=True)
class CommandTime:
    """One run of a command: seconds of wall time, and seconds of CPU time in all its threads."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class CommandLine:
    """The command line of one checkout, with a project.

    Args:
        code: folder of the checkout.
        repo: the project's folder.
        url: of the Redis server.
    """

    code: Path
    repo: Path
    url: str

    def make_project(self) -> str:
        """Write, apply, materialize and train the project; return the id of a logged prediction.

        Raises:
            ProgramError: a command failed.
        """
        self.run(["init", str(self.repo)])
        has_stream = (self.repo / "data" / "stream.parquet").exists()
        for command in ("apply", *(["import"] if has_stream else []), "materialize", "train"):
            self.run([command, *self._in_repo])
        reply = json.loads(self.run(["predict", "fraud", "--row", _ROW, "--json", *self._in_repo]))
        return str(reply["predictions"][0]["id"])

    def arguments(self, command: str, prediction: str) -> list[str]:
        """Return the arguments of a command that is measured."""
        more = {
            "--help": [],
            "doctor": [*self._in_repo],
            "get": ["card_days", "--key", "card_id=9007199254740993", *self._in_repo],
            "why": [prediction, *self._in_repo],
            "predict": ["fraud", "--row", _ROW, *self._in_repo],
            "versions": ["fraud", *self._in_repo],
        }
        return [command, *more.get(command, self._in_repo)]

    def run(self, arguments: Sequence[str]) -> str:
        """Run a command; return its output.

        Raises:
            ProgramError: it failed.
        """
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {
            "PYTHONPATH": str(self.code),
            "PYTHONPYCACHEPREFIX": str(self.repo.parent / "bytecode"),
            "SKEWLESS_REDIS_URL": self.url,
        }
        command = [sys.executable, "-c", _PROGRAM, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=self.repo.parent
        )
        if done.returncode:
            raise ProgramError(f"{' '.join(arguments)} failed:\n{done.stdout[-_TAIL:]}{done.stderr[-_TAIL:]}")
        return done.stdout

    def measure(self, arguments: Sequence[str]) -> CommandTime:
        """Run a command and return its times.

        Raises:
            ProgramError: it failed.
        """
        before, begun = _children_cpu(), time.perf_counter()
        self.run(arguments)
        return CommandTime(time.perf_counter() - begun, _children_cpu() - before)

    @property
    def _in_repo(self) -> list[str]:
        return ["--repo", str(self.repo)]


def run() -> list[Result]:
    """Run each command of this checkout, and of ``BENCH_BEFORE`` if there is one, in turn."""
    checkouts = [Path(__file__).resolve().parents[1]]
    if "BENCH_BEFORE" in os.environ:
        checkouts.append(Path(os.environ["BENCH_BEFORE"]).resolve())
    with own_server() as url, tempfile.TemporaryDirectory() as folder:
        lines = [
            CommandLine(code, Path(folder) / name / name, url)
            for code, name in zip(checkouts, ("now", "before"), strict=False)
        ]
        for line in lines:
            line.repo.parent.mkdir()
        predictions = [line.make_project() for line in lines]
        results: list[Result] = []
        for command, limit in LIMITS.items():
            commands = [line.arguments(command, it) for line, it in zip(lines, predictions, strict=True)]
            turns = [
                [line.measure(arguments) for line, arguments in zip(lines, commands, strict=True)]
                for _ in range(rounds(ROUNDS) + 1)
            ]
            results += _rows(command, limit, turns[1:])  # the first writes bytecode
        return results


def _rows(command: str, limit: float | None, turns: Sequence[Sequence[CommandTime]]) -> list[Result]:
    ours = [turn[0] for turn in turns]
    wall, cpu = statistics.median(item.wall for item in ours), statistics.median(item.cpu for item in ours)
    before = [turn[1].cpu for turn in turns if len(turn) > 1]
    return [
        Result(
            name=f"{_NAME}: {command}, time",
            value=wall,
            unit="s",
            against="-" if limit is None else f"the limit of {limit:g} s",
            ratio=None if limit is None else wall / limit,
            target=None if limit is None else 1.0,
        ),
        Result(
            name=f"{_NAME}: {command}, CPU time",
            value=cpu,
            unit="s",
            against=f"before ({statistics.median(before):.3g} s)" if before else "-",
            ratio=statistics.median(item.cpu / old for item, old in zip(ours, before, strict=True)) if before else None,
        ),
    ]


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
