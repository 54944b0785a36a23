"""Behind a server of this machine, `plan`, `apply` and `train` compute in idle time, in which they hold nothing."""

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from skewless.infra.platform.host import priority, processes
from skewless.infra.platform.storage import package_folder
from skewless.infra.platform.storage.durable import hold_lock
from skewless.infra.platform.storage.sqlite_database import SqliteDatabase
from tests.worlds.trained import MODEL, Sandbox, opened_copy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has idle time")
LOW, IDLE = 1, 2  # idle time is a priority here, which threads inherit: other tests leave no core idle


def in_idle_time() -> bool:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == IDLE


def use_idle_time() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), IDLE)


class Watcher:
    """Notes what is held or written in idle time: others may wait for it until a core is idle."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.held: list[str] = []
        self.computed = 0
        patch.setattr(processes, "is_served_here", lambda _state: True)
        patch.setattr(processes, "use_idle_time", self._begin)
        patch.setattr(priority, "_LOW", LOW)
        patch.setattr(SqliteDatabase, "_begin", self._noting(SqliteDatabase._begin))
        patch.setattr(SqliteDatabase, "_run", self._noting(SqliteDatabase._run))
        patch.setattr(SqliteDatabase, "hold_lock", self._noting(SqliteDatabase.hold_lock))
        patch.setattr(package_folder, "hold_lock", self._noting(hold_lock))

    def _begin(self) -> None:
        self.computed += 1
        use_idle_time()

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:  # noqa: ANN401 - any function
            is_read = args[-2:-1] and isinstance(args[-2], str) and args[-2].lstrip().startswith(("SELECT", "WITH"))
            if in_idle_time() and not is_read:
                callers = [f"{frame.function}:{frame.lineno}" for frame in inspect.stack()[1:9]]
                self.held.append(f"{function.__qualname__} {args[1:]} by {callers}")
            return function(*args)

        return noted


@pytest.fixture
def idle_watcher(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Sandbox, Watcher]]:
    with opened_copy(trained, tmp_path / "p") as place:
        yield place, Watcher(monkeypatch)


def test_nobody_waits_for_what_is_done_in_idle_time(idle_watcher: tuple[Sandbox, Watcher]) -> None:
    place, watcher = idle_watcher
    definitions = place.repo / "definitions.py"
    text = definitions.read_text(encoding="utf-8")
    definitions.write_text(text.replace('        Field(name="country", dtype=String),\n', ""), encoding="utf-8")
    assert [change.action for change in place.project.plan().changes].count("change") >= 1
    assert place.project.apply().applied
    # The new version of the view has no rows yet: `train` writes them first.
    assert place.project.train(MODEL).decision.promote
    assert watcher.computed >= 3
    assert watcher.held == []
