"""The batch job of a project on several hosts: new facts are written on one host and materialized there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.nightly.hosts.host import Host
from tests.nightly.hosts.project import HostProject, repo_of
from tests.worlds.latest import times
from tests.worlds.waiting import PATIENCE_S
from tests.worlds.windowed import CARRIERS


@dataclass
class FactPublisher:
    """Writes new facts and materializes them, again and again.

    Args:
        pause_s: between two materializations.
        fleet: the latest published fleet of the first carrier; each further carrier has one more.
        codes: exit codes of the runs.
    """

    project: HostProject
    host: Host
    pause_s: float
    fleet: int = 0
    codes: list[int] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Publish for the length of a block, and once more at its end, which must succeed."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
        assert self._publish() == 0, (self.host.folder / "materialize.log").read_text()[-2_000:]

    def expected_fleets(self) -> dict[str, float]:
        """Return the fleet of each carrier."""
        return {carrier: float(self.fleet + i) for i, carrier in enumerate(CARRIERS)}

    def _run(self) -> None:
        while not self._stop.wait(self.pause_s):
            self._publish()

    def _publish(self) -> int:
        self.fleet += 10
        now = times(*[self.project.now_us()] * len(CARRIERS))
        fleets = [float(self.fleet + i) for i in range(len(CARRIERS))]
        path = repo_of(self.host) / "data/facts.parquet"
        append_rows(path, pa.table({"carrier": CARRIERS, "fleet": fleets, "event_time": now, "created": now}))
        program = self.project.start(self.host, "materialize")
        assert program.process is not None
        self.codes.append(program.process.wait(PATIENCE_S))
        return self.codes[-1]


def append_rows(path: Path, rows: pa.Table) -> None:
    """Replace a Parquet file by one with more rows."""
    draft = path.with_suffix(".new")
    pq.write_table(pa.concat_tables([pq.read_table(path), rows]), draft)
    draft.replace(path)
