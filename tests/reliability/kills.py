"""A materialisation in a process of its own that kills itself before or after a chosen durable step.

Run as a program: ``kills.py ROOT URL NOW POINT SIDE``; ``POINT`` is ``NAME#NUMBER``, or empty to list the points.
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Side = Literal["before", "after"]
ROOT = Path(__file__).parents[2]
_WRITE = re.compile(r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)")
_BATCH = 7  # rows: so that a small run has several steps of each kind


def points(root: Path, url: str, now_us: int) -> list[str]:
    """Return the points that a whole run comes by, in order."""
    done = _child(root, url, now_us, "", "before")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def killed(root: Path, url: str, now_us: int, point: str, side: Side) -> bool:
    """Run until a point, and say whether the run died there rather than end without coming by."""
    done = _child(root, url, now_us, point, side)
    assert done.returncode in {0, -9}, done.stderr
    return done.returncode == -9


def _child(root: Path, url: str, now_us: int, point: str, side: Side) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.reliability.kills", str(root), url, str(now_us), point, side]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


class Steps:
    """Counts the durable steps of this process, and dies at one of them."""

    def __init__(self, point: str, side: Side) -> None:
        self._point = point
        self._side = side
        self.passed: list[str] = []

    def wrap(self, owner: Any, name: str, label: Callable[..., str]) -> None:  # noqa: ANN401 - modules and classes
        """Count the calls of a function, under a label made from its arguments."""
        real = getattr(owner, name)

        def call(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401 - of the function that is wrapped
            return self._step(label(*arguments), lambda: real(*arguments, **keywords))

        setattr(owner, name, call)

    def wrap_commits(self) -> None:
        """Count the commits of the database, under the tables or the kinds of documents that they change."""
        step = self._step

        class CountedConnection(sqlite3.Connection):
            changed: tuple[str, ...] = ()

            def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:  # noqa: ANN401 - of sqlite3
                run = super().execute
                # A lease is renewed from time to time, and not at the same step of each run.
                if (match := _WRITE.match(sql)) and not sql.startswith("UPDATE leases SET until_us = ?"):
                    self.changed += (values[0] if match[1] == "documents" else match[1],)
                if sql == "ROLLBACK":
                    self.changed = ()
                changed = "-".join(dict.fromkeys(self.changed))
                if not changed or (self.in_transaction and sql != "COMMIT"):
                    return run(sql, values)
                self.changed = ()
                return step(f"commit-{changed}", lambda: run(sql, values))

        sqlite3.connect = partial(sqlite3.connect, factory=CountedConnection)  # type: ignore[assignment]

    def _step(self, kind: str, call: Callable[[], T]) -> T:
        point = f"{kind}#{sum(each.partition('#')[0] == kind for each in self.passed) + 1}"
        self.passed.append(point)
        self._die(point, "before")
        result = call()
        self._die(point, "after")
        return result

    def _die(self, point: str, side: Side) -> None:
        if (point, side) == (self._point, self._side):
            os.kill(os.getpid(), 9)


def _synced(descriptor: int) -> str:
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    return "sync-folder" if path.is_dir() else "sync-object"


def main(arguments: Sequence[str]) -> None:
    """Run one materialisation under the steps' eyes; without a point, list those passed."""
    import skewless.infra.materialization.latest_rows  # noqa: PLC0415
    import skewless.infra.materialization.materialize  # noqa: PLC0415 - only the child needs these
    from skewless.contract.clock import ManualClock  # noqa: PLC0415
    from skewless.infra.log.partition_log import StagedRows  # noqa: PLC0415
    from skewless.infra.online.redis_store import RedisWriter  # noqa: PLC0415
    from tests.reliability.losses import VIEW  # noqa: PLC0415
    from tests.worlds.latest import LatestRedisWorld  # noqa: PLC0415

    root, url, now_us, point, side = arguments
    skewless.infra.materialization.materialize._BATCH_ROWS = skewless.infra.materialization.latest_rows._BATCH_ROWS = (
        _BATCH
    )
    steps = Steps(point, "after" if side == "after" else "before")
    steps.wrap(os, "fsync", _synced)
    steps.wrap(os, "link", lambda *_: "link-object")
    steps.wrap_commits()
    steps.wrap(StagedRows, "write", lambda *_: "write-draft")
    for name in ("put", "set_markers"):
        steps.wrap(RedisWriter, name, lambda *_, name=name: name)
    LatestRedisWorld(root=Path(root), url=url, clock=ManualClock(int(now_us))).run(VIEW)
    if not point:
        sys.stdout.write("\n".join(steps.passed))


if __name__ == "__main__":
    main(sys.argv[1:])
