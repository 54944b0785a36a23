"""A project on PostgreSQL whose database goes back to an older state while its server and its worker run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.clock import OffsetClock
from skewless.contract.settings import load_settings
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import compact
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage import project_state
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.records.outcomes.log import compact_outcomes
from tests.nightly.hosts.publisher import append_rows
from tests.nightly.hosts.traffic import SentEvent, expected_features, post, predict
from tests.servers.prediction import PredictionServer
from tests.worlds.command_line import done
from tests.worlds.edits import edit
from tests.worlds.latest import times
from tests.worlds.waiting import PATIENCE_S, eventually
from tests.worlds.windowed import CARRIERS, COLUMNS, MINUTE, write_repo
from tools.postgres_server import PostgresServer

_SETTINGS = """\
auth: 'off'
database_url: {database_url}
redis_url: {redis_url}
stream_partitions: 2
"""


@dataclass(kw_only=True)
class OlderDatabaseProject:
    """The project, and what its clients have sent and received."""

    repo: Path
    postgres: PostgresServer
    data: Path
    server: PredictionServer = field(init=False)
    worker_log: Path = field(init=False)
    sent: list[SentEvent] = field(default_factory=list)
    predictions: list[str] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    fleet: int = 0

    def set_up(self, database_url: str, redis_url: str) -> None:
        """Bring the project to its first champion."""
        write_repo(self.repo)
        edit(self.repo, COLUMNS, f'"skewless.event_id": "landing", {COLUMNS}, landing string')
        edit(self.repo, "tolerance=1.0", "tolerance=1.0, beat_baseline=False", file="models.py")
        edit(self.repo, "rounds=3,", 'rounds=3,\n        log="required",', file="models.py")
        rows = pq.read_table(self.repo / "data/landings.parquet")
        ids = pa.array([f"h{i}" for i in range(rows.num_rows)])
        pq.write_table(rows.append_column("landing", ids), self.repo / "data/landings.parquet")
        with (self.repo / "skewless.yaml").open("a") as file:
            file.write(_SETTINGS.format(database_url=database_url, redis_url=redis_url))
        for verb in ("apply", "import", "backfill", "materialize", "train"):
            done(verb, "--repo", self.repo)

    @property
    def state(self) -> ProjectState:
        """The state of the project."""
        return ProjectState.of(self.repo, load_settings(self.repo))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run a server and a stream worker for the length of a block."""
        self.worker_log = self.repo.parent / "stream.log"
        self.server = PredictionServer.start(self.repo, SKEWLESS_RELOAD_SECONDS="0.5")
        try:
            with self.worker_log.open("wb") as log:
                worker = self._start_worker(log)
                try:
                    yield
                finally:
                    worker.terminate()
                    worker.wait(PATIENCE_S)
        finally:
            self.server.stop()

    def live(self, rounds: int) -> None:
        """Publish facts, send events, predict, and give outcomes."""
        for _ in range(rounds):
            self.publish()
            self.send_events()
            self.predict()

    def publish(self) -> None:
        """Write new facts, and materialize them."""
        self.write_facts()
        done("materialize", "--repo", self.repo)

    def write_facts(self) -> None:
        """Write new facts of all carriers."""
        self.fleet += 10
        now = times(*[self.now_us()] * len(CARRIERS))
        fleets = [float(self.fleet + i) for i in range(len(CARRIERS))]
        facts = pa.table({"carrier": CARRIERS, "fleet": fleets, "event_time": now, "created": now})
        append_rows(self.repo / "data/facts.parquet", facts)

    def send_events(self) -> None:
        """Send an event of each carrier."""
        n = len(self.sent)
        events = [SentEvent(f"e{n + i}", each, (n + i) / 10, self.now_us()) for i, each in enumerate(CARRIERS)]
        status, body = post(self.server.url, "/events/landings", {"events": [event.as_dict() for event in events]})
        assert status in {200, 202}, body
        self.sent += events

    def predict(self) -> None:
        """Predict for each carrier, and give the outcomes."""
        status, body = predict(self.server.url)
        assert status == 200, body
        ids = [row["id"] for row in body["predictions"]]
        self.predictions += ids
        outcomes = [{"prediction_id": name, "label": 1} for name in ids]
        status, body = post(self.server.url, "/feedback", {"feedback": outcomes})
        assert status in {200, 202}, body
        self.outcomes += ids

    def merge(self) -> None:
        """Merge small segments, and delete the objects that no log has any more."""
        state = self.state
        compact_outcomes(state)
        for name in Catalog(state.database).ends("events"):
            compact(PartitionLog(state, name), keep=1)
        Catalog(state.database).delete_unread(state.storage)

    def until_applied(self) -> None:
        """Wait until the worker has applied all events and the server has shipped all files."""

        def is_applied() -> bool:
            status = done("status", "--repo", self.repo)
            logged = self.logged("events", "landing")
            return all(view["lag"] == 0 for view in status["windows"]) and {event.id for event in self.sent} <= {
                *logged
            }

        eventually(is_applied)
        eventually(lambda: not list((self.state / "spool").glob("*/*.parquet")))

    def logged(self, folder: str, column: str) -> list[str]:
        """Return the values of a column of logs that the catalog lists."""
        state = self.state
        names = [name for name in Catalog(state.database).partitions() if name.split("/")[0] == folder]
        return [
            value
            for name in names
            for rows in PartitionLog(state, name).read(columns=[column])
            for value in rows[column].to_pylist()
        ]

    def copy_database(self, target: Path) -> None:
        """Copy the data of the stopped server."""
        self._stop()
        _copy(self.data, target)
        self.postgres.start()

    def fail_over(self, copy: Path) -> None:
        """Replace the data by a copy."""
        self._stop()
        shutil.rmtree(self.data)
        _copy(copy, self.data)
        self.postgres.start()

    def count_wrong_values(self) -> int:
        """Return how many values of the server differ from plain Python over all events and facts."""
        status, body = eventually(lambda: predict(self.server.url), lambda reply: reply[0] == 200)
        assert status == 200
        self.predictions += [row["id"] for row in body["predictions"]]
        expected, wrong = expected_features(self.sent, body["t_us"]), 0
        for i, (carrier, row) in enumerate(zip(CARRIERS, body["predictions"], strict=True)):
            seen = row["features"]
            values = seen["carrier_now__landings_1h"], seen["carrier_now__mean_delay_1h"], seen["facts__fleet"]
            wrong += sum(one != other for one, other in zip(values, (*expected[carrier], self.fleet + i), strict=True))
        return wrong

    def now_us(self) -> int:
        """Return the time of the project."""
        return OffsetClock(self.repo / "clock").now_us()

    def wait(self) -> None:
        """Let a minute pass."""
        OffsetClock(self.repo / "clock").set(self.now_us() + MINUTE)

    def _stop(self) -> None:
        for database in project_state._databases.values():
            database.close()
        self.postgres.stop()

    def _start_worker(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        words: Sequence[str] = ("-c", "from skewless.cli import main; main()", "stream", "--repo", str(self.repo))
        return subprocess.Popen([sys.executable, *words, "--json"], stdout=subprocess.DEVNULL, stderr=log)

    def worker_said(self, event: str) -> list[str]:
        """Return the lines of the worker's log about an event."""
        return [line for line in self.worker_log.read_text().splitlines() if event in line]


def _copy(source: Path, target: Path) -> None:
    """Copy a folder with the owners of its files."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)  # noqa: S607 - the system's
