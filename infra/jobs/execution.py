"""The work of a run while it is under way: in a process of its own, or at once in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from skewless.infra.jobs import lifeline
from skewless.infra.jobs.run import Run, State

REFUSED = 5  # exit code of a gate that said no
_LONGEST = 65_536


@dataclass(frozen=True, kw_only=True)
class Completion:
    """How the work ended: its exit code, and the JSON object that it answered."""

    code: int
    outputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """Return what the ledger calls it."""
        if self.code == lifeline.CUT:
            return "lost"
        return "done" if self.code == 0 else "refused" if self.code == REFUSED else "failed"

    @property
    def error(self) -> str | None:
        """Return what went wrong, in a sentence."""
        if self.code == 0:
            return None
        said = self.outputs.get("error")
        return str(said["message"]) if isinstance(said, Mapping) else f"ended with exit code {self.code}"


class Execution(Protocol):
    """Work under way."""

    def beat(self) -> None:
        """Tell it that its scheduler is still the holder."""
        ...

    def poll(self) -> Completion | None:
        """Return how it ended, None while it has not."""
        ...

    def terminate(self) -> None:
        """Ask it to end."""
        ...

    def kill(self) -> None:
        """End it now, with all that it has started, and wait until it has."""
        ...


Launch = Callable[[Run, Sequence[str]], Execution]


class ProcessExecution:
    """A command in processes of its own, which end when this process does.

    Args:
        command: its words.
        environment: its environment variables.
        silence_s: it is killed when ``beat`` was not called for so long.
        answer: an open file that takes its stdout; closed in the end.
    """

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], silence_s: float, answer: IO[bytes]
    ) -> None:
        line = Path(lifeline.__file__)
        self._answer = answer
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, str(line), str(silence_s), *command],
            bufsize=0,  # a pipe that breaks has nothing left to write when it is closed
            stdin=subprocess.PIPE,
            stdout=answer,
            env=dict(environment),
            start_new_session=True,
        )

    def beat(self) -> None:
        """Write one byte; who has ended needs none."""
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            try:
                pipe.write(b".")
                pipe.flush()
            except (BrokenPipeError, ValueError):
                return

    def poll(self) -> Completion | None:
        """Return exit code and answer."""
        code = self._process.poll()
        if code is None:
            return None
        self._close()
        self._answer.seek(0)
        ended = Completion(code=code, outputs=answered(self._answer.read()))
        self._answer.close()
        return ended

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Cut the line, which kills the command."""
        self._close()
        self._process.wait()

    def _close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


@dataclass(frozen=True, kw_only=True)
class CompletedExecution:
    """Work that was done when it began, in this process."""

    ended: Completion

    def beat(self) -> None:
        """Do nothing."""

    def poll(self) -> Completion | None:
        """Return how it ended."""
        return self.ended

    def terminate(self) -> None:
        """Do nothing."""

    def kill(self) -> None:
        """Do nothing."""


def answered(text: bytes) -> dict[str, Any]:
    """Return the JSON object that a verb answered; only its plain values if it is long, nothing if it is none.

    >>> answered(b'{"rows": 3}'), answered(b"killed")
    ({'rows': 3}, {})
    """
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(body, dict):
        return {}
    if len(text) <= _LONGEST:
        return body
    return {name: value for name, value in body.items() if name == "error" or not isinstance(value, dict | list)}
