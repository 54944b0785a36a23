"""Executes the work of a run: in a child process, or immediately in this process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from skewless.infra.platform.jobs import lifeline
from skewless.infra.platform.jobs.run import Run, State
from skewless.infra.platform.telemetry.redaction import redact

REFUSED = 5  # exit code of a command whose gate failed
# Bytes of outputs that the ledger stores completely; it has a file for each run.
_LONGEST = 65_536
# Bytes of the log that it stores: the end of it, more of a run that was not done.
_LOG_DONE, _LOG_FAILED = 4_096, 16_384
_LOG_WAIT_S = 1.0


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
    """The end of a run's work, or work that has ended already.

    Args:
        code: exit code.
        outputs: the JSON object that it printed.
        log: the end of its stderr, without secrets.
    """

    code: int
    outputs: Mapping[str, Any] = field(default_factory=dict)
    log: str = ""

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
        self._log = bytearray()
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, str(lifeline_program), str(silence_s), *command],
            bufsize=0,  # without a buffer, closing a broken pipe has nothing to write and cannot fail
            stdin=subprocess.PIPE,
            # A file, not a pipe: nobody reads while the command runs, and a full pipe would block it.
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read_log, name="log of a run", daemon=True)
        self._reader.start()

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
        self._reader.join(_LOG_WAIT_S)  # a process that the command has left behind may still hold its stderr
        self._stdout.seek(0)
        log = bytes(self._log[-(_LOG_DONE if code == 0 else _LOG_FAILED) :]).decode(errors="replace")
        completion = Completion(code=code, outputs=decode_outputs(self._stdout.read()), log=redact(log))
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

    def _read_log(self) -> None:
        """Pass the command's log lines on as they come, and keep the last ones."""
        stderr = self._process.stderr
        assert stderr is not None  # noqa: S101 - for the types
        with stderr:
            for line in stderr:
                self._log += line
                if len(self._log) > 2 * _LOG_FAILED:
                    del self._log[:-_LOG_FAILED]
                sys.stderr.write(line.decode(errors="replace"))

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
