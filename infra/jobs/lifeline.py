"""Runs a command for as long as somebody writes to stdin: ``lifeline.py SILENCE WORD...``.

The scheduler writes a byte whenever its lease is renewed. If it dies, stdin ends; if it hangs or is paused, stdin is
silent for SILENCE seconds: in both cases the command's processes are killed, because another scheduler may be the
holder soon. SIGTERM is passed on. Starts without importing anything of skewless.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

_LOOK_S = 0.05
CUT = 75  # exit code: the line was cut (EX_TEMPFAIL)


def main(arguments: Sequence[str]) -> int:
    """Return the exit code of the command, or ``CUT``."""
    silence_s = float(arguments[0])
    command = subprocess.Popen(arguments[1:], stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - ours
    signal.signal(signal.SIGTERM, lambda *_: _signal(command, signal.SIGTERM))
    heard = time.monotonic()
    while command.poll() is None:
        if select.select([0], [], [], _LOOK_S)[0]:
            if not os.read(0, 4_096):
                return _cut(command)
            heard = time.monotonic()
        elif time.monotonic() - heard > silence_s:
            return _cut(command)
    return command.returncode


def _cut(command: subprocess.Popen[bytes]) -> int:
    _signal(command, signal.SIGKILL)
    command.wait()
    return CUT


def _signal(command: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Reach the command and what it has started: they are a session of their own."""
    if command.poll() is None:
        os.killpg(command.pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
