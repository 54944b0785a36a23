"""Threads that give way to the event loop of their process."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

_LOW = 10  # a tenth of a busy core


def give_way() -> None:
    """Lower the priority of the calling thread: on Linux that of one thread can be; elsewhere nothing happens."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOW)
