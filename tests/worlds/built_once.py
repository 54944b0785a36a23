"""What a session builds once for all its workers, each of which has a process and fixtures of its own."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from skewless.infra.log import readers
from skewless.infra.platform.storage import project_state


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Return a folder that the first worker to ask has built; the others wait for it, and only read or copy it.

    Args:
        build: fills a folder that does not exist yet.
    """
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built" / name
    shared.mkdir(parents=True, exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "is-built").exists():
            shutil.rmtree(shared / "p", ignore_errors=True)  # of a build that failed
            build(shared / "p")
            close_databases()  # their files end with the last connection, while others may copy the folder
            (shared / "is-built").touch()
    return shared / "p"


def close_databases() -> None:
    """Close the connections of this process to all databases of projects."""
    readers._threads.close()  # their database may end with the test
    readers._renewals.clear()
    for database in list(project_state._databases.values()):
        if database._idle or database._is_checked:  # of thousands, after a while
            database.close()
