"""The sessions of docs/on-call.md, typed as they stand there and compared with what the programs say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.pages import Step, page, section, steps
from tests.servers.prediction import MAIN, ROOT, PredictionServer
from tests.worlds.command_line import run
from tests.worlds.waiting import eventually

_SERVER = "http://127.0.0.1:8080"
SEEN, OVER = "*You see*", "*It is over when*"


@dataclass(frozen=True, kw_only=True)
class OnCall:
    """Somebody who is woken, with the page, a project and its server.

    Args:
        server: None: no server of the project runs.
        environment: of the commands; empty: they run in this process.
    """

    repo: Path
    server: PredictionServer | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def sees(self, title: str) -> None:
        """Wait until each command under "You see" says what the page shows."""
        self._compare(title, SEEN)

    def is_over(self, title: str) -> None:
        """Wait until each command under "It is over when" says what the page shows."""
        self._compare(title, OVER)

    def _compare(self, title: str, part: str) -> None:
        sessions = _part(title, part)
        assert sessions, (title, part)
        for step in sessions:
            said = eventually(lambda step=step: self.ask(step.command), lambda said, step=step: shows(said, step.shown))  # type: ignore[misc]
            assert shows(said, step.shown), (step, said)

    def ask(self, command: str) -> str:
        """Return what a command of the page says: stdout, then stderr."""
        command, _, pattern = command.partition(" | grep ")
        said = self._curl(command) if command.startswith("curl ") else self._run(command)
        return "\n".join(line for line in said.splitlines() if pattern.strip("'\"") in line)

    def _run(self, command: str) -> str:
        program, *words = shlex.split(command)
        assert program == "skewless", command
        words += ["--repo", str(self.repo)]
        if self.environment:
            command_line = [sys.executable, "-c", MAIN, *words]
            environment = {**os.environ, **self.environment}
            done = subprocess.run(
                command_line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=100
            )
            return done.stdout + done.stderr
        said = run(*words)
        return said.stdout + said.stderr

    def _curl(self, command: str) -> str:
        assert self.server is not None
        words = shlex.split(command)[1:]
        (url,) = (word for word in words if word.startswith(_SERVER))
        path = url.removeprefix(_SERVER)
        body = words[words.index("-d") + 1].encode() if "-d" in words else None
        status, headers, text = self.server.ask("POST" if body else "GET", path, body)
        shown = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items()), ""]
        return "\n".join([*(shown if "-si" in words else ()), text])


def _part(title: str, part: str) -> Sequence[Step]:
    text = section(page("on-call.md"), title)
    seen, _, over = text.partition(OVER)
    return steps(over if part == OVER else seen.partition(SEEN)[2])


def shows(said: str, shown: str) -> bool:
    r"""Return whether a text has the lines that are shown, in their order; ``...`` stands for anything.

    >>> shows("one 17\ntwo\nthree 3", "one ...\nthree 3")
    True
    >>> shows("three\none", "one\nthree")
    False
    """
    lines = iter(said.splitlines())
    patterns = [".*".join(map(re.escape, line.rstrip().split("..."))) for line in shown.strip().splitlines()]
    return all(any(re.fullmatch(pattern, line.rstrip()) for line in lines) for pattern in patterns if pattern != ".*")


def titles() -> list[str]:
    """Return the failures of the page."""
    return re.findall(r"^## (\d+\. .+)$", page("on-call.md"), re.MULTILINE)
