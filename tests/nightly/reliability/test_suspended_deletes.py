"""SEMANTICS 4.5: a process that was suspended while it deleted online rows, and goes on, hides no row of later runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from skewless import ManualClock, workspace
from skewless.project import Project
from tests.nightly.reliability.command_answers import see_truth
from tests.nightly.reliability.command_kills import change_views, need_again
from tests.servers.prediction import ROOT
from tests.worlds.erasures import NOW, fill, values, write_repo

SUSPENDED = """\
import os, signal, sys, time
from pathlib import Path

from skewless import ManualClock, workspace
from skewless.infra.reads.online import redis_store
from skewless.infra.reads.online.redis_store import RedisWriter
from skewless.infra.reads.online.store import open_online_store
from skewless.infra.platform.storage.leases import Leases
from skewless.project import Project
from tests.worlds.erasures import NOW


def retire(project):
    from tests.reliability import command_kills  # half a second, which only this command spends
    command_kills.retire(project)


COMMANDS = {
    "backfill": lambda project: project.backfill(["users"]),
    "retire": retire,
    "teardown": lambda project: open_online_store(project.redis_url).delete(f"sk:{project.needed.plan.project}:"),
}
Leases.__init__.__defaults__ = (0.2,)
redis_store._SCAN_COUNT = 2
real, left = RedisWriter.remove, int(sys.argv[3])


def remove(store, keys, *marker):
    global left
    left -= bool(keys)
    if keys and not left:
        Leases.renew = lambda *_: True  # not in a transaction of SQLite, which would stop all others
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGSTOP)
    return real(store, keys, *marker)


RedisWriter.remove = remove
workspace.open_clock = lambda _setting: ManualClock(NOW)
with Project(Path(sys.argv[1])) as project:
    COMMANDS[sys.argv[2]](project)
"""


def refill(project: Project) -> None:
    """Write all online rows and states again."""
    project.materialize()
    project.backfill()


@pytest.mark.parametrize(
    ("command", "step", "meanwhile", "is_kept"),
    [
        ("backfill", 2, Project.materialize, True),
        pytest.param("retire", 2, need_again, True, marks=pytest.mark.soak),
        ("retire", 6, need_again, False),  # before the marker: the view is unavailable until the next run
        pytest.param("teardown", 6, refill, False, marks=pytest.mark.soak),  # states of windows have no marker then
    ],
)
def test_4_5_a_suspended_deletion_hides_no_row_of_a_later_run(
    tmp_path: Path,
    server_url: str,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    step: int,
    meanwhile: Callable[[Project], object],
    *,
    is_kept: bool,
) -> None:
    monkeypatch.setattr(workspace, "open_clock", lambda _setting: ManualClock(NOW))
    name = f"p_{tmp_path.name}".replace("-", "_")
    repo = write_repo(tmp_path / "p", name, settings=f"redis_url: {server_url}\n")
    with Project(repo) as project:
        fill(project)
        expected = values(project, is_short=True)
        if command == "retire":
            change_views(project)
        words = [sys.executable, "-c", SUSPENDED, str(repo), command, str(step)]
        with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as deleting:
            assert os.WIFSTOPPED(os.waitpid(deleting.pid, os.WUNTRACED)[1])
            try:
                meanwhile(project)
            finally:
                deleting.send_signal(signal.SIGCONT)
            _, said = deleting.communicate()
        assert deleting.returncode == 0 or "ConflictError" in said, said
        see_truth(project)
        if not is_kept:
            refill(project)
        assert values(project, is_short=True) == expected
        assert project.parity(sample=100).ok
