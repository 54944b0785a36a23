"""Which states of windowed views a prediction may have read (SEMANTICS 2.7).

The log of the tests::

    batch      0             1             2
    taken      0 s           100 s         200 s
    applied    1 s           101 s         201 s
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from skewless.contract.request import ParsedRows
from skewless.contract.rows import Versions
from skewless.contract.status import Int64Array, Status
from skewless.contract.windows.hops import SECOND
from skewless.contract.windows.state_layout import partition_number
from skewless.contract.windows.tiles import AppliedPositions
from skewless.infra.log.compaction import compact
from skewless.infra.log.log_columns import DECLARED, KNOWN_AT
from skewless.infra.records.predictions.reader import LoggedPredictions, LoggedViewRead
from skewless.validation.allowed_reads import check_states
from skewless.validation.replay_report import Cause, Findings
from tests.worlds.parity import HOUR, NOW, VIEW, ParityWorld, event_rows


@pytest.fixture
def parity_world(tmp_path: Path) -> Iterator[ParityWorld]:
    parity_world = ParityWorld(root=tmp_path, url="redis://127.0.0.1:1")
    log = parity_world.log()
    for seconds in (0, 100, 200):
        taken = NOW + seconds * SECOND
        span = log.append(event_rows([("AA", taken - SECOND, 1.0, 1)], taken))
        log.record_end(span.first, span.last, taken + SECOND)
    yield parity_world
    parity_world.close()


def found(
    parity_world: ParityWorld, applied: int, *, start: int, end: int, t: int | None = None, skew_us: int = 0
) -> set[Cause]:
    """Return what is found of one read of AA's state, which lay at a position; times are seconds."""
    slots = AppliedPositions.empty()
    if applied >= 0:
        number = partition_number(parity_world.log().partition)
        seq = np.array([applied])
        slots = AppliedPositions(entity=np.array([0]), partition=np.array([number]), first=seq, seq=seq)
    read = LoggedViewRead(
        hashes=[VIEW.hash], status=np.array([Status.PRESENT], np.uint8), versions=Versions.empty(1), applied=slots
    )
    one = np.array([1.0])

    def at(seconds: int) -> Int64Array:
        return np.array([NOW + seconds * SECOND])

    logged = LoggedPredictions(
        source="entities",
        ids=["p"],
        t=at(start if t is None else t),
        asked_at=at(end),
        read_start=at(start),
        read_end=at(end),
        skew_us=np.array([skew_us]),
        inputs=["{}"],
        plan_hash=[""],
        transform_hashes=[[]],
        tolerance=one,
        vectors=one[:, None],
        score=one,
        scores=one,
        roles=["champion"],
        actions=[None],
        reasons=[None],
        lists=[None],
        propensities=np.array([np.nan]),
        reads={VIEW.name: read},
    )
    findings = Findings()
    check_states(VIEW, parity_world.views, logged, ParsedRows(keys={"carrier": ["AA"]}, fields={}), findings)
    return set(findings.by_cause)


@pytest.mark.parametrize(("applied", "expected"), [(0, {Cause.LOST_WRITE}), (1, set()), (2, {Cause.UNKNOWN_VERSION})])
def test_a_state_that_was_read_at_once(parity_world: ParityWorld, applied: int, expected: set[Cause]) -> None:
    assert found(parity_world, applied, start=150, end=150) == expected


@pytest.mark.parametrize(
    ("applied", "expected"), [(-1, {Cause.LOST_WRITE}), (0, set()), (1, set()), (2, {Cause.UNKNOWN_VERSION})]
)
def test_a_state_from_a_cache_may_be_as_old_as_its_read(
    parity_world: ParityWorld, applied: int, expected: set[Cause]
) -> None:
    assert found(parity_world, applied, start=50, end=150, t=150) == expected


@pytest.mark.parametrize("hours", [-2, 2])
@pytest.mark.parametrize(("applied", "lost"), [(0, True), (1, False)])
def test_as_of_does_not_move_what_could_be_read(
    parity_world: ParityWorld, hours: int, applied: int, *, lost: bool
) -> None:
    t = 150 + hours * HOUR // SECOND
    assert found(parity_world, applied, start=150, end=150, t=t) == ({Cause.LOST_WRITE} if lost else set())


@pytest.mark.parametrize(("skew", "lost"), [(48, True), (50, False)])
def test_clocks_apart_widen_it(parity_world: ParityWorld, skew: int, *, lost: bool) -> None:
    assert (Cause.LOST_WRITE in found(parity_world, 0, start=150, end=150, skew_us=skew * SECOND)) == lost


@pytest.mark.parametrize(("start", "lost"), [(50, False), (150, True)])
def test_history_was_applied_when_it_was_taken_not_when_it_counts_as_known(
    tmp_path: Path, start: int, *, lost: bool
) -> None:
    """SEMANTICS 2.6: its known time was declared; no state was read before it had what was taken as history."""
    parity_world = ParityWorld(root=tmp_path, url="redis://127.0.0.1:1")
    taken = NOW + 100 * SECOND
    rows = event_rows([("AA", NOW - HOUR, 1.0, 1)] * 2, taken)
    for known in (NOW - HOUR, NOW + HOUR):
        declared = rows.slice(0, 1).append_column(KNOWN_AT, pa.array([known], pa.int64()))
        parity_world.log().append(declared.append_column(DECLARED, pa.array([True])))
    assert found(parity_world, -1, start=start, end=start) == ({Cause.LOST_WRITE} if lost else set())
    assert found(parity_world, 0, start=start, end=start + 100) == ({Cause.LOST_WRITE} if lost else set())
    compact(parity_world.log(), keep=0)
    assert found(parity_world, -1, start=start, end=start) == ({Cause.LOST_WRITE} if lost else set())
    parity_world.close()
