"""A database that goes back to an older state gets all rows of its logs back, each exactly once."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skewless.contract.dtypes import DType
from skewless.contract.errors import StoreError
from skewless.contract.feedback import Outcome
from skewless.infra.log.bucket_order import BucketOrder
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import KNOWN_AT, SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import DATABASE_FILE, ProjectState
from skewless.infra.records.outcomes.log import OUTCOMES, OutcomeWriter, outcome_spool
from skewless.operations.state.recovery import RecoveryReport, recover_logs
from tests.property.fewer import FEWER
from tests.worlds.plans import columns

EVENTS = ("events/s/ab12/0", "events/s/ab12/1")
ORDER = BucketOrder(keys=columns({"x": DType.INT64}), buckets=4, block_rows=5, group_rows=2)
STEPS = st.lists(
    st.sampled_from(
        ["append 0", "append 1", "apply", "compact", "sort", "merge", "delete", "outcome", "outcome", "ship", "new"]
    ),
    max_size=25,
)


class FailoverProject:
    """A project's logs, with the rows that they must have."""

    def __init__(self, folder: Path) -> None:
        self.state = ProjectState(folder)
        self.rows: dict[str, list[int]] = {name: [] for name in EVENTS}
        self.outcomes: Counter[float] = Counter()
        self.writer = self._open_writer()

    def _open_writer(self) -> OutcomeWriter:
        return OutcomeWriter(outcome_spool(self.state), on_stored=lambda: None)

    def take(self, step: str) -> None:
        word, _, number = step.partition(" ")
        if word in {"append", "apply", "compact", "sort"}:
            for name in EVENTS if not number else [EVENTS[int(number)]]:
                self._change_events(word, PartitionLog(self.state, name))
        elif word == "merge":
            compact(PartitionLog(self.state, OUTCOMES), keep=0, group=lambda _: OUTCOMES, target_rows=12)
        elif word == "delete":
            Catalog(self.state.database).delete_unread(self.state.storage)
        elif word == "outcome":
            value = float(sum(self.outcomes.values()))
            outcomes = [Outcome(prediction_id="p", label=value + i, known_at=1) for i in range(2)]
            self.writer.append(outcomes, received_at=int(value), source="http")
            self.outcomes += Counter(value + i for i in range(2))
        elif word == "ship":
            outcome_spool(self.state).ship()
        else:
            self.writer = self._open_writer()

    def _change_events(self, word: str, log: PartitionLog) -> None:
        known, end = self.rows[log.partition], log.next_seq()
        if word == "append":
            added = list(range(len(known), len(known) + 1 + len(known) % 3))
            log.append(pa.table({"x": added}))
            known += added
        elif word == "apply" and end:
            log.record_end(0, end - 1, 100 + end)
        elif word == "compact":
            compact(log, keep=1, target_rows=12)
        elif word == "sort":
            compact(log, keep=1, target_rows=12, order=ORDER)

    def save(self, path: Path) -> None:
        """Copy the database as it is now."""
        with closing(sqlite3.connect(self.state / DATABASE_FILE)) as source, closing(sqlite3.connect(path)) as target:
            source.backup(target)

    def fail_over(self, path: Path) -> None:
        """Replace the database by a copy."""
        self.state.database.close()
        for suffix in ("", "-wal", "-shm"):
            (self.state / f"{DATABASE_FILE}{suffix}").unlink(missing_ok=True)
        shutil.copyfile(path, self.state / DATABASE_FILE)

    def read(self, name: str) -> list[dict[str, Any]]:
        log = PartitionLog(self.state, name)
        return [row for rows in log.read(columns=["x", SEQ, KNOWN_AT]) for row in rows.to_pylist()]

    def check(self, report: RecoveryReport) -> None:
        """Check that all rows are in the logs, each once."""
        assert (report.error, report.conflicts, report.missing) == (None, [], [])
        for name, values in self.rows.items():
            rows = self.read(name)
            assert [(row["x"], row[SEQ]) for row in rows] == [(x, x) for x in values]
        outcome_spool(self.state).ship()
        log = PartitionLog(self.state, OUTCOMES)
        labels = Counter(label for rows in log.read(columns=["label"]) for label in rows["label"].to_pylist())
        assert labels == self.outcomes
        assert log.next_seq() == sum(self.outcomes.values())


@pytest.fixture(autouse=True)
def _without_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


@example(before=[], lost=["outcome", "ship"], after=["outcome", "ship"])
@example(before=[], lost=["outcome", "ship", "outcome", "ship", "merge", "delete"], after=["outcome", "ship"])
@FEWER
@given(before=STEPS, lost=STEPS, after=st.lists(st.sampled_from(["outcome", "ship", "merge", "delete"]), max_size=6))
def test_all_rows_are_back_exactly_once(before: list[str], lost: list[str], after: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = FailoverProject(Path(folder) / "state")
        project.take("append 0")
        for step in before:
            project.take(step)
        project.save(Path(folder) / "copy.db")
        for step in lost:
            project.take(step)
        project.fail_over(Path(folder) / "copy.db")
        # A server continues meanwhile; no worker can.
        for step in after:
            with suppress(StoreError):  # a merge of a segment without its object
                project.take(step)
        planned = recover_logs(project.state, dry_run=True)
        report = recover_logs(project.state)
        assert [log.log for log in planned.logs] == [log.log for log in report.logs]
        project.check(report)
        again = recover_logs(project.state)
        assert (again.logs, again.error) == ([], None)
        for step in ("append 0", "append 1", "outcome", "ship", "apply", "compact", "sort", "merge", "delete"):
            project.take(step)
        project.check(recover_logs(project.state))
        project.state.database.close()
