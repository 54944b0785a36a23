"""How fast the states of a windowed view were last built here: what ``skewless plan`` says about time comes from it."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from pathlib import Path

from skewless.contract.errors import StoreError
from skewless.infra.storage.durable import replace_durable

_FILE = "build.json"
_MOST_TIMES = 10  # a build says nothing of one that reads more times as many events


def note_build(folder: Path, events: int, seconds: float) -> None:
    """Keep how long a build took; a disk that refuses is no trouble of the build.

    Args:
        folder: of the files about windows.
    """
    body = {"host": socket.gethostname(), "events": events, "seconds": seconds}
    with suppress(StoreError, OSError):
        replace_durable(folder / _FILE, json.dumps(body).encode())


def build_seconds(folder: Path, events: int) -> float | None:
    """Return about how long a build of so many events takes; None: the last one was elsewhere, or much smaller."""
    try:
        last = json.loads((folder / _FILE).read_bytes())
        if last["host"] != socket.gethostname() or events > _MOST_TIMES * last["events"] or not last["events"]:
            return None
        return float(last["seconds"] * events / last["events"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
