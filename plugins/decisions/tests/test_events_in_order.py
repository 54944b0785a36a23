"""SEMANTICS 9: each decision is about exactly the events of the log before its own, once, and replay proves it."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from structlog.testing import capture_logs

from plugins.decisions.tests.deciding import ALL, SECOND, VIEW, DecidingWorld
from skewless.contract.bounds import Bound, Bounds
from skewless.contract.columns import Transform
from skewless.contract.decisions import CONDITION_OUTPUTS, Crosses, Direction
from skewless.contract.errors import StoreError
from skewless.contract.spec import MissingPolicy
from skewless.infra.ingest.streams.port import EventStream, RebalanceListener
from skewless.infra.log.catalog import Segment, log_ends
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.reads.online.redis_store import BlockingReader
from skewless_decisions.decision_log import DecisionLog
from skewless_decisions.deliveries import Deliveries
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.windows.oracle import Event, features
from tests.worlds.plans import refs
from tests.worlds.streams import SOURCE, Traffic, drain, event_of

PARTITIONS = 3


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._LINGER_S", 0.0)
    monkeypatch.setattr("skewless.infra.ingest.streams.worker._RETRY_S", 0.02)
    monkeypatch.setattr("skewless.contract.windows.codec.ROLL_RECORDS", 6)


@pytest.fixture
def deciding(tmp_path: Path, server_url: str) -> DecidingWorld:
    """A project with a champion and states, and no event."""
    deciding = DecidingWorld(root=tmp_path / f"p{uuid.uuid4().hex[:6]}", url=server_url)
    deciding.publish()
    deciding.ensure()
    return deciding


def opening(broker: MemoryBroker) -> Callable[[RebalanceListener], EventStream]:
    return lambda owner: MemoryStream(broker, owner)


def feed(deciding: DecidingWorld, traffic: Traffic, broker: MemoryBroker, n: int = 40) -> None:
    deciding.clock.set(deciding.clock.now_us() + 7 * SECOND)
    for key, message in traffic.make(n, deciding.clock.now_us()):
        broker.append(key % PARTITIONS, message)


def work(deciding: DecidingWorld, broker: MemoryBroker, *, max_rows: int = 1_000) -> int:
    """Let a new worker take, decide and apply all events; return how many windows were computed from the log."""
    with deciding.store() as store:
        worker = deciding.worker(store, opening(broker), max_rows=max_rows)
        with deciding.deciding(store) as decider:
            worker.set_decider(decider)
            drain(worker, more=lambda: any(counts.lag != 0 for counts in decider.counts))
            worker.close()
            decider.close()
            return max(counts.recomputed for counts in decider.counts)


def test_9_2_a_decision_sees_exactly_the_events_before_its_own(deciding: DecidingWorld) -> None:
    """Batches of one and of many events of an entity, none of whose windows is computed from the log."""
    broker, traffic, recomputed = MemoryBroker(PARTITIONS), Traffic(7), 0
    for max_rows in (5, 1_000, 1_000):
        feed(deciding, traffic, broker)
        recomputed += work(deciding, broker, max_rows=max_rows)
    assert deciding.check_decisions() > 60
    assert recomputed == 0
    deciding.check()
    training, knows = deciding.replayed.training, deciding.count_gap(knows=True)
    assert training["knowledge"].different == knows > 0 < training["event_time"].different
    assert training["event_time"].different == deciding.count_gap(knows=False)
    reasons = {mode: {each for counts in gap.reasons.values() for each in counts} for mode, gap in training.items()}
    assert reasons == {"knowledge": {"after_t"}, "event_time": {"late"}}


def test_9_3_events_that_were_applied_but_not_decided_are_decided_from_the_log(
    deciding: DecidingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database refuses every decision while the states take every event."""
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(3)
    feed(deciding, traffic, broker)
    append, refused = DecisionLog.append, list[Any]()

    def refuse(log: DecisionLog, *arguments: Any) -> Any:  # noqa: ANN401 - of the log
        if len(refused) < 8:
            refused.append(arguments)
            raise StoreError("database", "is down", fix="wait")
        return append(log, *arguments)

    monkeypatch.setattr(DecisionLog, "append", refuse)
    assert work(deciding, broker) > 0
    assert len(refused) == 8
    assert deciding.check_decisions() > 20
    deciding.check()


def test_9_3_no_decision_is_logged_before_its_events(deciding: DecidingWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of events is slower than decisions, and refuses every third batch."""
    broker, traffic, calls = MemoryBroker(PARTITIONS), Traffic(8), itertools.count()
    append, offer, decided = PartitionLog.append, Deliveries.offer, list[int]()

    def refuse(log: PartitionLog, rows: pa.Table, **options: Any) -> Any:  # noqa: ANN401 - of the log
        time.sleep(0.02)
        if next(calls) % 3 == 0:
            raise StoreError("disk", "is full", fix="wait")
        return append(log, rows, **options)

    def watch(deliveries: Deliveries, segment: Segment, rows: pa.Table) -> None:
        ends = log_ends(deciding.state, deciding.source.name)
        events = rows["event"].to_pylist()
        assert all(event["seq"] <= ends[event["partition"]] for event in events)
        decided.extend(event["seq"] for event in events)
        offer(deliveries, segment, rows)

    monkeypatch.setattr(PartitionLog, "append", refuse)
    monkeypatch.setattr(Deliveries, "offer", watch)
    for _ in range(2):
        feed(deciding, traffic, broker)
        work(deciding, broker, max_rows=20)
    assert deciding.check_decisions() == len(decided) > 60
    deciding.check()


def test_9_3_a_second_worker_decides_nothing_anew(deciding: DecidingWorld) -> None:
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(4)
    feed(deciding, traffic, broker)
    work(deciding, broker)
    before = str(deciding.log_rows())
    work(deciding, broker)
    assert str(deciding.log_rows()) == before


def test_9_3_of_two_workers_that_both_own_a_partition_one_decides(deciding: DecidingWorld) -> None:
    """Each has its own broker, which assigns everything to it."""
    traffic, brokers = Traffic(5), (MemoryBroker(PARTITIONS), MemoryBroker(PARTITIONS))
    with (
        deciding.store() as one,
        deciding.store() as two,
        deciding.deciding(one) as first,
        deciding.deciding(two) as second,
    ):
        workers = [deciding.worker(store, opening(broker)) for store, broker in zip((one, two), brokers, strict=True)]
        for worker, decider in zip(workers, (first, second), strict=True):
            worker.set_decider(decider)
            worker.step()
        for turn in range(6):
            deciding.clock.set(deciding.clock.now_us() + 7 * SECOND)
            for key, message in traffic.make(10, deciding.clock.now_us()):
                for broker in brokers:
                    broker.append(key % PARTITIONS, message)
            workers[turn % 2].step()
            workers[1 - turn % 2].step()
        drain(*workers, more=lambda: any(counts.lag != 0 for counts in (*first.counts, *second.counts)))
        for worker, decider in zip(workers, (first, second), strict=True):
            worker.close()
            decider.close()
    assert deciding.check_decisions() > 20


def test_9_3_a_worker_that_gave_up_a_partition_goes_on_with_its_others(
    deciding: DecidingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has skipped events of the partition, whose position is written later, and the next owner decides there."""
    monkeypatch.setattr("skewless_decisions.decider._RECORD_S", 3_600.0)
    source = "def f(event):\n    return event['id'] >= 5\n"
    names = [f"event.{column.name}" for column in SOURCE.readable]
    when = Transform(name="high", function="f", source=source, inputs=refs(*names), outputs=CONDITION_OUTPUTS)
    deciding.decisions = (replace(ALL, when=when),)
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(13)

    def feed_ids(ids: range) -> None:
        deciding.clock.set(deciding.clock.now_us() + 7 * SECOND)
        for key, message in traffic.make(60, deciding.clock.now_us()):
            if key in ids:
                broker.append(key % PARTITIONS, message)

    with (
        deciding.store() as one,
        deciding.store() as two,
        deciding.deciding(one) as first,
        deciding.deciding(two) as second,
        capture_logs() as logs,
    ):
        workers = [deciding.worker(store, opening(broker)) for store in (one, two)]
        for worker, decider in zip(workers, (first, second), strict=True):
            worker.set_decider(decider)
        feed_ids(range(5))
        drain(workers[0], more=lambda: any(counts.lag != 0 for counts in first.counts))
        drain(*workers)
        feed_ids(range(5, 10))
        drain(*workers, more=lambda: any(counts.lag != 0 for counts in (*first.counts, *second.counts)))
        assert all(counts.decided for counts in (*first.counts, *second.counts))
        for decider in (first, second):
            vars(decider)["_record_at"] = 0.0
        drain(*workers)
        for worker, decider in zip(workers, (first, second), strict=True):
            worker.close()
            decider.close()
    assert "partition_lost" not in [entry["event"] for entry in logs]
    assert deciding.check_decisions("all", lambda event, _: event["id"] >= 5) > 5


def test_9_1_late_events_are_skipped_if_declared(deciding: DecidingWorld) -> None:
    deciding.decisions = (ALL, replace(ALL, name="fresh", late="skip"))
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(6)
    feed(deciding, traffic, broker, n=60)
    work(deciding, broker)
    decided = deciding.check_decisions("all"), deciding.check_decisions("fresh", lambda _, late: not late)
    assert decided[0] > decided[1] > 5


def test_9_5_a_condition_is_a_function_of_the_event(deciding: DecidingWorld) -> None:
    """It fails on some events, which become dead letters; the others of their batch are decided."""
    source = "def f(event):\n    if (event['n'] == -7).any():\n        raise ValueError\n    return event['x'] > 0\n"
    names = [f"event.{column.name}" for column in SOURCE.readable]
    when = Transform(name="large", function="f", source=source, inputs=refs(*names), outputs=CONDITION_OUTPUTS)
    deciding.decisions = (replace(ALL, when=when),)
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(8)
    feed(deciding, traffic, broker, n=60)
    work(deciding, broker)
    decided = deciding.check_decisions("all", lambda event, _: event["n"] != -7 and (event["x"] or 0) > 0)
    dead = DecisionLog(deciding.state).list_dead("all")
    assert {each.reason for each in dead} == {"the condition fails with ValueError"}
    assert {(each.partition, each.seq) for each in dead} == {
        (name, row["__seq"]) for name, row, _, _ in deciding.timed_events() if row["n"] == -7
    }
    positions = DecisionLog(deciding.state).list_positions().values()
    assert sum(each.decided for each in positions) == decided > 5
    assert sum(each.dead for each in positions) == len(dead) > 0


@pytest.mark.parametrize("direction", ["up", "both"])
def test_9_6_a_feature_that_crosses_a_bound_decides(deciding: DecidingWorld, direction: Direction) -> None:
    """The oracle computes the feature without and with each event, a millisecond later."""
    deciding.decisions = (replace(ALL, when=Crosses(feature="v:last_20", bound=10, direction=direction)),)
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(9)
    for _ in range(2):
        feed(deciding, traffic, broker)
        work(deciding, broker)
    times = {(name, row["__seq"]): t for name, row, t, _ in deciding.timed_events()}
    every = [(name, event_of(name, row)) for name, row, _, _ in deciding.timed_events()]
    place = [item.name for item in VIEW.aggregates].index("last_20")

    def side(name: str, event: Event, most: int) -> bool:
        counted = [item for of, item in every if of == name and item.key == event.key and item.seq <= most]
        value = features(VIEW, counted, times[name, event.seq] + 1_000)[place]
        return value is not None and value >= 10

    crossed = {
        (name, event.seq)
        for name, event in every
        if (was := side(name, event, event.seq - 1)) != (now := side(name, event, event.seq))
        and (direction == "both" or now > was)
    }
    met = {row["event"] for name, row, _, _ in deciding.timed_events() if (name, row["__seq"]) in crossed}
    assert deciding.check_decisions("all", lambda event, _: event["event"] in met) == len(crossed) > 3


@pytest.mark.parametrize("missing", ["null", "refuse"])
def test_9_4_without_a_store_events_wait_for_their_deadline(
    deciding: DecidingWorld, monkeypatch: pytest.MonkeyPatch, missing: MissingPolicy
) -> None:
    """The windows of the source come from the log, so that a model without other views needs no store."""
    deciding.missing = missing
    deciding.publish()
    deciding.decisions = (ALL, replace(ALL, name="soon", deadline=timedelta(seconds=30)))
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(10)
    feed(deciding, traffic, broker)
    down = StoreError("online store", "is down", fix="wait")
    monkeypatch.setattr(BlockingReader, "get_with_markers", raising(down))
    with deciding.store() as store:
        worker = deciding.worker(store, opening(broker))
        with deciding.deciding(store) as decider:
            worker.set_decider(decider)
            for _ in range(3):
                worker.step()
            assert [counts.decided for counts in decider.counts] == [0, 0]
            assert all(counts.trouble and "is down" in counts.trouble for counts in decider.counts)
            deciding.clock.set(deciding.clock.now_us() + 31 * SECOND)
            drain(worker, more=lambda: decider.counts[1].lag != 0)
            worker.close()
            decider.close()
    assert not deciding.log_rows("all")
    if missing == "null":
        assert deciding.check_decisions("soon") > 20
    else:
        dead = DecisionLog(deciding.state).list_dead("soon")
        assert {each.reason for each in dead} == {"the deadline has passed: online store is down"}
        assert len(dead) == len(list(deciding.timed_events()))
    monkeypatch.undo()
    work(deciding, broker)
    assert deciding.check_decisions("all") > 20


def test_9_4_an_event_that_the_model_refuses_is_a_dead_letter_and_its_neighbours_are_decided(
    deciding: DecidingWorld,
) -> None:
    deciding.bounds = Bounds(fields={"x": Bound(high=50.0)})
    deciding.publish()
    broker, traffic = MemoryBroker(PARTITIONS), Traffic(10)
    feed(deciding, traffic, broker)
    work(deciding, broker)

    def is_refused(event: dict[str, Any]) -> bool:
        return event["x"] is not None and event["x"] > 50

    assert deciding.check_decisions("all", lambda event, _: not is_refused(event)) > 10
    refused = {(name, row["__seq"]) for name, row, _, _ in deciding.timed_events() if is_refused(row)}
    dead = DecisionLog(deciding.state).list_dead("all")
    assert {(each.partition, each.seq) for each in dead} == refused
    assert {each.reason for each in dead} == {"field 'x' is outside the model's bounds"}
    assert len(dead) == len(refused) > 5


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> Any:  # noqa: ANN401 - it never returns
        raise error

    return fail
