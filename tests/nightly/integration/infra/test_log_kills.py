"""SEMANTICS 4.2: a kill at any durable step leaves a log whole, and racing processes leave one dense log."""

from __future__ import annotations

import os
from itertools import count

import pytest

from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import KNOWN_AT, SEQ
from skewless.infra.platform.storage.project_state import ProjectState
from tests.integration.infra.log_victims import WINS, WRITERS, LogVictims
from tests.integration.infra.partition_logs import bounds, fill, listed, objects, opened, read, sweep, values


@pytest.fixture(autouse=True)
def _without_syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill is not a power cut: it loses nothing that was written."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.parametrize("work", ["append", "stage"])
def test_4_2_a_killed_append_is_in_the_log_completely_or_not_at_all(
    killed_state: ProjectState, victims: LogVictims, work: str
) -> None:
    outcomes = []
    for step in count(1):
        partition = f"events/s/{work}/{step}"
        fill(opened(killed_state, partition), 4)
        was_killed = victims.run(work, killed_state, partition, step)
        written = values(opened(killed_state, partition))
        assert written in ([0, 1, 2, 3], [0, 1, 2, 3, 4, 5])
        fill(opened(killed_state, partition), 2)
        assert values(opened(killed_state, partition)) == list(range(len(written) + 2))
        if not was_killed:
            assert len(written) == 6
            break
        outcomes.append(len(written))
    # From the step after the commit on, the rows are in the log.
    assert outcomes == sorted(outcomes)
    assert (len(outcomes) >= 8, set(outcomes)) == (True, {4, 6})
    assert sweep(killed_state)
    assert objects(killed_state) == listed(killed_state)


def test_4_2_a_killed_compaction_changes_no_row(killed_state: ProjectState, victims: LogVictims) -> None:
    steps, half_done = 0, 0
    for step in count(1):
        partition = f"events/s/compact/{step}"
        log = opened(killed_state, partition)
        fill(log, 1, 1, 1, 1, known_us=7)
        fill(log, 1)
        expected = [(i, 7 if i <= 3 else None) for i in range(5)]
        was_killed = victims.run("compact", killed_state, partition, step)
        for _ in range(2):
            assert [(row["x"], row[KNOWN_AT]) for row in read(log, columns=["x", KNOWN_AT])] == expected
            half_done += len(bounds(log)) == 4
            compact(log, keep=1, target_rows=2)
        assert bounds(log) == [(0, 1), (2, 3), (4, 4)]
        if not was_killed:
            break
        steps += 1
    assert steps >= 20
    assert half_done
    sweep(killed_state)
    assert objects(killed_state) == listed(killed_state)


def test_4_2_a_killed_housekeeping_deletes_the_rest_later(killed_state: ProjectState, victims: LogVictims) -> None:
    steps = 0
    for step in count(1):
        log = opened(killed_state, f"events/s/sweep/{step}")
        fill(log, 1, 1, 1, known_us=1)
        compact(log, keep=1)
        killed_state.storage.put(f"{log.object_name(0)}", b"an interrupted append")
        was_killed = victims.run("sweep", killed_state, "", step)
        sweep(killed_state)
        assert objects(killed_state) == listed(killed_state)
        assert values(log) == [0, 1, 2]
        if not was_killed:
            break
        steps += 1
    assert steps >= 6


def test_4_2_racing_writers_and_compactions_leave_one_dense_log(
    killed_state: ProjectState, victims: LogVictims
) -> None:
    partition_log = opened(killed_state)
    assert not victims.run("race", killed_state, partition_log.partition)
    each = sum(i % 3 + 1 for i in range(WINS))
    table = read(partition_log, columns=[SEQ, "x", KNOWN_AT])
    assert [row[SEQ] for row in table] == list(range(WRITERS * each))
    writers = [row["x"] for row in table]
    assert {writers.count(writer) for writer in writers} == {each}
    assert len(set(writers)) == WRITERS
    assert all(1_000 <= row[KNOWN_AT] - row[SEQ] <= 1_002 for row in table)
    sweep(killed_state)
    assert objects(killed_state) == listed(killed_state)
