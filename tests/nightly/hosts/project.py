"""A project on several hosts: each has its own definitions, state folder, clock and programs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.clock import OffsetClock
from skewless.contract.settings import load_settings
from skewless.infra.platform.storage.project_state import ProjectState
from tests.nightly.hosts.host import Host, HostProgram
from tests.nightly.hosts.services import SERVER_PORT
from tests.worlds.command_line import done
from tests.worlds.edits import edit
from tests.worlds.waiting import until
from tests.worlds.windowed import COLUMNS, write_repo

# Shifts the clock of a process; Debian's package `faketime` has it. Without it, servers and workers have one clock.
_SHIFT = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
_MAIN = "from skewless.cli import main; main()"
_TICK = "@every 4s"
_SETTINGS = """\
clock: file:clock
threads: 1
auth: 'off'
host: {host}
port: {port}
database_url: {database_url}
storage_url: {storage_url}
redis_url: {redis_url}
stream_partitions: 2
scheduler_lease_seconds: 2
freshness_cron: '{tick}'
{crons}
"""
# What a program writes when it has started: from then on, no outage may end it.
_STARTED = {"serve": b'"url"', "stream": b'"plan_loaded"', "scheduler": b'"scheduler_started"'}
_OFF = ("materialize", "validate", "parity", "replay", "drift", "quality", "triggers", "housekeeping")


@dataclass(kw_only=True)
class HostProject:
    """One project on several hosts.

    Args:
        hosts: the first has been used to set the project up.
        scheduler_skews_us: clock of each host's scheduler minus the clock of the test.
        skews_us: the same of all other programs; they must agree to the setting ``skew_limit_ms``.
    """

    hosts: Sequence[Host]
    database_url: str
    storage_url: str
    redis_url: str
    scheduler_skews_us: Sequence[int]
    skews_us: Sequence[int]

    def set_up(self) -> None:
        """Write, apply and train the project on the first host, and copy its definitions to the others."""
        first, *others = self.hosts
        repo = write_repo(repo_of(first))
        edit(repo, COLUMNS, f'"skewless.event_id": "landing", {COLUMNS}, landing string')
        edit(repo, "tolerance=1.0", "tolerance=1.0, beat_baseline=False", file="models.py")
        edit(repo, "rounds=3,", 'rounds=3,\n        log="required",', file="models.py")
        rows = pq.read_table(repo / "data/landings.parquet")
        ids = pa.array([f"h{i}" for i in range(rows.num_rows)])
        pq.write_table(rows.append_column("landing", ids), repo / "data/landings.parquet")
        self._write_settings(first)
        for verb in ("apply", "import", "backfill", "materialize", "train"):
            done(verb, "--repo", repo)
        for host in others:
            shutil.copytree(repo, repo_of(host), ignore=shutil.ignore_patterns("__pycache__", ".skewless"))
            self._write_settings(host)
        for host, skew_us in zip(self.hosts, self.scheduler_skews_us, strict=True):
            OffsetClock.create(repo_of(host) / "scheduler-clock").set(self.now_us() + skew_us)

    @property
    def states(self) -> list[ProjectState]:
        """The state as each host sees it."""
        return [ProjectState.of(repo, load_settings(repo)) for repo in map(repo_of, self.hosts)]

    def now_us(self) -> int:
        """Return the time of the test."""
        return OffsetClock(repo_of(self.hosts[0]) / "clock").now_us()

    def start(self, host: Host, verb: str, *words: str) -> HostProgram:
        """Start a command on a host; a server replies when this returns, and a worker or scheduler has started."""
        environment = {**os.environ, "SKEWLESS_LOG": "json"}
        if verb == "scheduler":
            environment["SKEWLESS_CLOCK"] = "file:scheduler-clock"
        elif _SHIFT is not None:
            shift_s = self.skews_us[self.hosts.index(host)] / 1e6
            environment |= {"LD_PRELOAD": str(_SHIFT), "FAKETIME": f"{shift_s:+.3f}", "DONT_FAKE_MONOTONIC": "1"}
        log = host.folder / f"{verb}.log"
        before = log.stat().st_size if log.exists() else 0
        program = host.start(verb, self.command(host, verb, *words), environment)
        if verb in _STARTED:
            until(lambda: _STARTED[verb] in log.read_bytes()[before:] or not program.is_running)
            assert program.is_running, log.read_text()
        return program

    def command(self, host: Host, verb: str, *words: str) -> list[str]:
        """Return the words of a command on a host."""
        return [sys.executable, "-c", _MAIN, verb, "--repo", str(repo_of(host)), "--json", *words]

    def ask(self, verb: str, *words: str) -> dict[str, Any]:
        """Run a command that must succeed, in this process, with the project of the first host."""
        return done(verb, *words, "--repo", repo_of(self.hosts[0]))

    def is_drained(self) -> bool:
        """Return whether all accepted events are in the states."""
        with suppress(AssertionError):  # a store that is still down
            return all(view["lag"] == 0 for view in self.ask("status")["windows"])
        return False

    def _write_settings(self, host: Host) -> None:
        crons = "\n".join(f"{name}_cron: 'off'" for name in _OFF)
        text = _SETTINGS.format(
            host=host.address,
            port=SERVER_PORT,
            database_url=self.database_url,
            storage_url=self.storage_url,
            redis_url=self.redis_url,
            tick=_TICK,
            crons=crons,
        )
        (repo_of(host) / "skewless.yaml").write_text(text)


def repo_of(host: Host) -> Path:
    """Return the folder of a host's definitions."""
    return host.folder / "project"
