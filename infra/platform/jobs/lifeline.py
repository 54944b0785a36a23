"""Runs a command while its parent sends heartbeats on stdin: ``lifeline.py SILENCE WORD...``.

The scheduler writes a byte after each renewal of its lease. If it dies, stdin ends; if it hangs or is paused, stdin
is silent for SILENCE seconds. In both cases the command's processes are killed, because another scheduler may soon
hold the lease. SIGTERM is passed on. Imports nothing of skewless, so that it starts fast.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

_POLL_S = 0.05
LIFELINE_CUT = 75  # exit code: heartbeats stopped (EX_TEMPFAIL)


def main(arguments: Sequence[str]) -> int:
    """Return the exit code of the command, or ``LIFELINE_CUT``."""
    silence_s = float(arguments[0])
    # A session of its own: one signal to the group reaches every process that the command starts.
    command = subprocess.Popen(arguments[1:], stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 - ours
    signal.signal(signal.SIGTERM, lambda *_: _send_signal(command, signal.SIGTERM))
    last_heartbeat = time.monotonic()
    while command.poll() is None:
        if select.select([0], [], [], _POLL_S)[0]:
            # End of file: the scheduler closed the pipe, or died. The kernel closes it even for a killed process.
            if not os.read(0, 4_096):
                return _kill(command)
            last_heartbeat = time.monotonic()
        elif time.monotonic() - last_heartbeat > silence_s:
            return _kill(command)
    return command.returncode


def _kill(command: subprocess.Popen[bytes]) -> int:
    _send_signal(command, signal.SIGKILL)
    command.wait()
    return LIFELINE_CUT


def _send_signal(command: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal the command and its child processes: they are in a separate session."""
    # After its end was collected, the number may belong to another process.
    if command.poll() is None:
        os.killpg(command.pid, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
