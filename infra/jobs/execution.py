"""Executes the work of a run: in a child process, or immediately in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from skewless.infra.jobs import lifeline
from skewless.infra.jobs.run import Run, State

REFUSED = 5  # exit code of a command whose gate failed
# Bytes of outputs that the ledger stores completely; it has a file for each run.
_LONGEST = 65_536


class Execution(ABC):
    """Work in progress. Work that was completed when it started needs only ``poll``."""

    @abstractmethod
    def poll(self) -> Completion | None:
        """Return its completion, None while it runs."""

    def send_heartbeat(self) -> None:  # noqa: B027 - see the class, as below
        """Notify it that its scheduler still holds the lease."""

    def terminate(self) -> None:  # noqa: B027
        """Ask it to end."""

    def kill(self) -> None:  # noqa: B027
        """Kill it and all its child processes, and wait for their end."""


@dataclass(frozen=True, kw_only=True)
class Completion(Execution):
    """The end of a run's work: its exit code, and the JSON object that it printed; or work that has ended already."""

    code: int
    outputs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """Return the state that the ledger records."""
        if self.code == lifeline.LIFELINE_CUT:
            return "lost"
        return "done" if self.code == 0 else "refused" if self.code == REFUSED else "failed"

    @property
    def error(self) -> str | None:
        """Return the error in a sentence, None if there was none."""
        if self.code == 0:
            return None
        error = self.outputs.get("error")
        return str(error["message"]) if isinstance(error, Mapping) else f"ended with exit code {self.code}"

    def poll(self) -> Completion:
        """Return itself."""
        return self


Launch = Callable[[Run, Sequence[str]], Execution]


class ProcessExecution(Execution):
    """A command in child processes, which end with this process.

    Args:
        command: the program and its arguments.
        environment: its environment variables.
        silence_s: seconds without ``send_heartbeat`` after which it is killed.
        stdout: an open file for its stdout; closed at the end.
    """

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], silence_s: float, stdout: IO[bytes]
    ) -> None:
        lifeline_program = Path(lifeline.__file__)
        self._stdout = stdout
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, str(lifeline_program), str(silence_s), *command],
            bufsize=0,  # without a buffer, closing a broken pipe has nothing to write and cannot fail
            stdin=subprocess.PIPE,
            # A file, not a pipe: nobody reads while the command runs, and a full pipe would block it.
            stdout=stdout,
            env=dict(environment),
            start_new_session=True,
        )

    def send_heartbeat(self) -> None:
        """Write one byte to the command's stdin; do nothing if it has ended."""
        # The work may have ended, or the main thread have closed the pipe.
        with suppress(BrokenPipeError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.write(b".")

    def poll(self) -> Completion | None:
        """Return exit code and outputs, None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        self._close()
        self._stdout.seek(0)
        completion = Completion(code=code, outputs=decode_outputs(self._stdout.read()))
        self._stdout.close()
        return completion

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Close the lifeline, which kills the command."""
        # Killing the lifeline itself would leave the command behind, which is in another session.
        self._close()
        self._process.wait()

    def _close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


def decode_outputs(text: bytes) -> dict[str, Any]:
    """Return the JSON object that a command printed: without its largest nested values if it is long.

    >>> decode_outputs(b'{"rows": 3}'), decode_outputs(b"killed")
    ({'rows': 3}, {})
    """
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(body, dict):
        return {}
    length = len(text)
    sizes = {name: len(json.dumps(value)) for name, value in body.items() if length > _LONGEST}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        if length > _LONGEST and name != "error" and isinstance(body[name], dict | list):
            length -= sizes[name]
            del body[name]
    return body
