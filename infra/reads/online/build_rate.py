"""Records how fast window states were last built on this host; ``skewless plan`` estimates build times from it."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path

from skewless.contract.errors import StoreError
from skewless.infra.platform.storage.durable import replace_durable

_FILE = "build.json"
_MAX_FACTOR = 10  # a larger factor makes the estimate worthless


def record_build(folder: Path, events: int, seconds: float) -> None:
    """Record how long a build took. A failed write is ignored: the build itself succeeded.

    Args:
        folder: the state folder for windowed views.
        events: how many events the build read.
        seconds: how long it took.
    """
    body = {"host": socket.gethostname(), "events": events, "seconds": seconds}
    with suppress(StoreError, OSError):
        replace_durable(folder / _FILE, json.dumps(body).encode())


def estimate_build_s(folder: Path, events: int) -> float | None:
    """Return the estimated seconds of a build of ``events`` events; None if the last one ran elsewhere or was small."""
    try:
        last = json.loads((folder / _FILE).read_bytes())
        if last["host"] != socket.gethostname() or events > _MAX_FACTOR * last["events"] or not last["events"]:
            return None
        return float(last["seconds"] * events / last["events"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
