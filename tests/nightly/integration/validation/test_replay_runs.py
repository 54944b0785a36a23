"""Replay of predictions read before, inside, between and after materialisation runs (SEMANTICS 2.6, 2.7)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from skewless.contract.clock import ManualClock
from skewless.contract.request import parse_rows
from skewless.contract.status import Status
from skewless.infra.reads.online.redis_store import RedisReader, RedisWriter
from skewless.serving.prediction.predictor import Predictor
from skewless.validation.rebuilt_predictions import entity_table
from skewless.validation.replay_report import Cause
from tests.worlds.ledger_runs import known_ranges, read_runs
from tests.worlds.planted import HalfWriter, Killed, named, written_through
from tests.worlds.trained import (
    FIRST_CARD,
    NOW,
    Sandbox,
    ask,
    changed,
    later_rows,
    looked_up,
    newest_rows,
    open_project,
)

ROOT = Path(__file__).parents[4]
# Every way to a server is closed in this process.
OFFLINE = """
import socket, sys
def refuse(*_): raise AssertionError("a connection was opened")
socket.socket.connect = socket.socket.connect_ex = refuse
from skewless.cli import main
try:
    main()
finally:
    assert "redis" not in sys.modules
"""


def test_replay_never_opens_the_store(place: Sandbox) -> None:
    place.predict(ask(25))
    place.project.private.stop()
    environment = os.environ | {"SKEWLESS_REDIS_URL": "redis://127.0.0.1:1", "SKEWLESS_THREADS": "1"}
    command = [sys.executable, "-c", OFFLINE, "replay", "--repo", str(place.repo), "--json"]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    body = json.loads(said.stdout)
    assert (body["compared"], body["different"], body["ok"]) == (25, 0, True)


def test_late_and_corrected_rows_show_up_only_against_event_time(place: Sandbox) -> None:
    place.predict(ask(30))
    served = newest_rows(place)
    place.wait(3600)
    created = pa.array([place.now_us()] * 30, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    rows = changed(served.slice(0, 30), 3.0).drop_columns(["created"]).append_column("created", created)
    place.publish(rows.slice(0, 10))
    hour = pa.scalar(3_600_000_000, pa.duration("us"))
    late = pc.add(rows["event_time"], hour)
    place.publish(rows.set_column(rows.column_names.index("event_time"), "event_time", late).slice(10, 5))
    reports = place.project.materialize(check=False)
    assert [report.accepted for report in reports] == [15, 0]
    report = place.project.replay()
    assert report.ok, report.lines()
    assert report.training["knowledge"].as_dict() == {"rows": 30, "different": 0, "reasons": {}}
    assert report.training["event_time"].as_dict() == {
        "rows": 30,
        "different": 15,
        "reasons": {"card_days": {"corrected": 10, "late": 5}},
    }


def test_what_was_read_in_flight_shows_up_only_against_knowledge(place: Sandbox) -> None:
    place.wait(60)
    place.publish(later_rows(place, 300))
    with written_through(place, HalfWriter(place.project.online, lambda: predict_in_thread(place, 300))):
        place.project.materialize(check=False)
    report = place.project.replay()
    assert report.ok, report.lines()
    # The first half was read anew before its run had ended, then everything.
    assert (report.inside_run, report.saw_old, report.saw_new) == (600, 150, 450)
    assert report.training["knowledge"].as_dict()["reasons"] == {"card_days": {"in_flight": 450}}
    assert report.training["event_time"].as_dict()["reasons"] == {"card_days": {"late": 150}}


def predict_in_thread(place: Sandbox, n: int) -> None:
    worker = threading.Thread(target=place.predict, args=[ask(n)])
    worker.start()
    worker.join()


def test_predictions_while_materialisations_run(place: Sandbox) -> None:
    """Two runs, each held open half-way until several more batches were predicted by another thread."""
    served = _Batches()
    thread = threading.Thread(target=_materialize, args=[place.repo, place.project.redis_url, served, 2])
    thread.start()
    asyncio.run(_predict_while(thread, place, served))
    report = place.project.replay()
    assert report.ok, report.lines()
    assert report.inside_run == _inside(place) >= 500
    assert report.changing == report.saw_old + report.saw_new >= 500
    assert report.saw_old > 100 < report.saw_new
    assert len(_versions_seen(place, FIRST_CARD)) == 3


class _Batches:
    """Counts batches in one thread and waits for more of them in another."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def add(self) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait_for(self, more: int) -> None:
        with self._changed:
            goal = self._count + more
            assert self._changed.wait_for(lambda: self._count >= goal, timeout=60)


def _materialize(repo: Path, url: str, served: _Batches, runs: int) -> None:
    # A DuckDB connection belongs to one thread, so this one has a project of its own.
    place = Sandbox(project=open_project(repo))
    online = HalfWriter(RedisWriter(url), lambda: served.wait_for(5))
    for _ in range(runs):
        place.publish(later_rows(place, 300, factor=1.01))
        with written_through(place, online):
            place.project.materialize(check=False)
        served.wait_for(1)
    online.close()
    place.project.close()


async def _predict_while(thread: threading.Thread, place: Sandbox, served: _Batches) -> None:
    log, reader = place.log(0.05), RedisReader(place.project.redis_url)
    predictor = Predictor(online=reader, clock=place.project.clock, log=log)
    while thread.is_alive():
        await predictor.predict(place.model, ask(50))
        served.add()
        await asyncio.sleep(0.001)
    log.close()
    await reader.close()


def _predictions(place: Sandbox) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in place.log_files()])


def _inside(place: Sandbox) -> int:
    """Count predictions whose reading overlapped a run, from the files and the table alone."""
    spans = place.project.state.database.query("SELECT started_us, ended_us FROM materializations WHERE ended_us > 0")
    times = _predictions(place).select(["read_start", "read_end"]).to_pydict()
    pairs = zip(times["read_start"], times["read_end"], strict=True)
    return sum(any(end >= start and begin <= stop for start, stop in spans) for begin, end in pairs)


def _versions_seen(place: Sandbox, card: int) -> set[int]:
    rows = _predictions(place).select(["inputs", "reads"]).to_pylist()
    return {row["reads"][0]["seq"] for row in rows if json.loads(row["inputs"])["card_id"] == card}


def test_a_run_that_was_killed_is_in_flight_until_another_covers_it(place: Sandbox) -> None:
    def kill() -> None:
        raise Killed

    place.publish(later_rows(place, 300))
    with written_through(place, HalfWriter(place.project.online, kill)), pytest.raises(Killed):
        place.project.materialize(check=False)
    place.wait(600)
    answer = place.predict(ask(300))
    report = place.project.replay()
    assert report.ok, report.lines()
    assert (report.inside_run, report.changing, report.saw_old, report.saw_new) == (300, 300, 150, 150)
    assert set(looked_up(answer).versions["card_days"].run_id.tolist()) == {1, 2}

    place.project.materialize(check=False)
    place.wait(1)
    place.predict(ask(300))
    report = place.project.replay()
    assert report.ok, report.lines()
    assert (report.compared, report.inside_run, report.saw_old, report.saw_new) == (600, 300, 150, 150)

    key = place.key("card_days", FIRST_CARD)
    place.redis.delete(key)
    place.predict(ask(1))
    assert named(place.project.replay()) == {(Cause.LOST_WRITE, "card_days")}


def test_a_flushed_store_is_unavailable_not_empty(place: Sandbox) -> None:
    """SEMANTICS 3.4, 4.5: without its marker a view's missing rows say nothing of their entities."""
    before = place.predict(ask(40))
    place.redis.flushall()
    lost = place.predict(ask(40))
    assert lost.degraded
    assert not before.degraded
    assert set(lost.status.ravel().tolist()) == {Status.UNAVAILABLE}
    assert not place.project.replay().findings.predictions
    place.project.materialize(check=False)
    after = place.predict(ask(40))
    assert not after.degraded
    np.testing.assert_array_equal(after.matrix, before.matrix)


def test_lost_rows_are_found_and_their_rebuild_changes_no_history(place: Sandbox) -> None:
    place.publish(later_rows(place, 20))
    place.project.materialize(check=False)
    place.wait(1)
    before = place.predict(ask(40))
    known = _known(place)
    # Somebody deletes rows and leaves the markers that vouch for them.
    for name in place.redis.scan_iter("*}"):
        place.redis.delete(name)
    lost = place.predict(ask(40))
    report = place.project.replay()
    assert named(report) == {(Cause.LOST_WRITE, "card_days"), (Cause.LOST_WRITE, "shop_risk")}
    assert report.findings.predictions == set(lost.ids)
    assert report.findings.by_cause == {Cause.LOST_WRITE: 80}

    place.redis.flushall()
    place.wait(3600)
    accepted = [(report.accepted, report.written) for report in place.project.materialize(check=False)]
    assert accepted == [(0, 300), (0, 40)]
    assert _known(place) == known
    place.wait(1)
    after = place.predict(ask(40))
    np.testing.assert_array_equal(after.matrix, before.matrix)
    report = place.project.replay()
    assert report.findings.predictions == set(lost.ids)
    # What training sees at any time is what it saw before; only the reads of the empty store differ from it.
    assert report.training["knowledge"].different == 40


def _known(place: Sandbox) -> list[object]:
    """Return when each log position was known, and what knowledge mode joins at some times."""
    views = place.project.views
    ask_40 = parse_rows(place.model.plan, ask(40), 40)
    found: list[object] = []
    for view in place.project.applied.plan.views:
        found += known_ranges(read_runs(place.project.state.database), view.partition)
        for t in (NOW - 86_400_000_000, NOW, place.now_us() - 1_000_000):
            entities = entity_table(view, ask_40, [t] * 40)
            found.append(views.read_view(view, entities, "knowledge").versions.seq.tolist())
    return found


def test_equal_times_accuse_nobody(place: Sandbox) -> None:
    """A run and a prediction in the same microsecond: either may have been first."""
    place.publish(later_rows(place, 5))
    place.wait(1)
    place.project.__dict__["clock"] = ManualClock(place.now_us() // 1_000 * 1_000)
    place.project.refresh()
    place.predict(ask(10))
    place.project.materialize(check=False)
    place.predict(ask(10))
    report = place.project.replay()
    assert report.ok, report.lines()
    assert (report.compared, report.inside_run, report.saw_old, report.saw_new) == (20, 20, 5, 5)
