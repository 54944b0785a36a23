"""When this process started."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

_START_FIELD = 19  # of /proc/self/stat after the name: clock ticks since boot


def started_ns() -> int | None:
    """Return when this process started, nanoseconds of real time, or up to a second earlier; None: unknown."""
    with suppress(OSError, ValueError, IndexError):
        # After the last parenthesis: the name before it may contain spaces and parentheses.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        since_boot = int(fields[_START_FIELD]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        # Like the field, this clock counts the time of a suspended machine; CLOCK_MONOTONIC does not.
        return time.time_ns() - (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - since_boot)
    with suppress(OSError, ValueError):
        command = ["/bin/ps", "-o", "lstart=", "-p", str(os.getpid())]
        # In the C locale, because strptime parses the names of days and months.
        run = subprocess.run(command, capture_output=True, text=True, check=False, env={"LC_ALL": "C"})  # noqa: S603 - no input
        return int(time.mktime(time.strptime(run.stdout.strip()))) * 1_000_000_000
    return None
