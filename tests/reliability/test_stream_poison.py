"""SEMANTICS 4.4: a rejected event is in the log with a reason, and does not stop other events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from skewless.contract.windows.hops import SECOND
from skewless.infra.ingest.streams.decode import Decoder
from skewless.infra.log.log_columns import RAW, REJECT
from skewless.infra.log.partition_log import PartitionLog
from tests.memory_stream import MemoryBroker, MemoryStream
from tests.worlds.streams import BASE, SOURCE, StreamWorld, drain


@pytest.fixture
def world(world: StreamWorld) -> StreamWorld:
    """A project whose states are built."""
    world.ensure()
    return world


def good(name: str, now_us: int = BASE) -> dict[str, Any]:
    return {"event": name, "id": 1, "ts": now_us, "x": 1.0, "y": None, "n": 2, "s": "a"}


def with_(**changed: Any) -> bytes:  # noqa: ANN401 - JSON values
    return json.dumps({**good("bad"), **changed}).encode()


EVENT_BYTES = 1_048_576  # longest event; of a longer one the beginning is kept
POISON: list[tuple[bytes | None, str]] = [
    (None, "no body"),
    (b"", "not a JSON object"),
    (b'{"id": 1', "not a JSON object"),
    (b"[1]", "not a JSON object"),
    (b'"x"', "not a JSON object"),
    (b"\xff\xfe", "not a JSON object"),
    (b'{"s": "\xff"}', "not a JSON object"),
    (b"[" * 100_000, "not a JSON object"),
    (b'{"s": ' * 50_000, "not a JSON object"),
    (b"{}" + b" " * 2_000_000, "2000002 bytes, more than event_bytes (1048576)"),
    (with_(ts=None), "'ts' is missing"),
    (b'{"event": "bad", "id": 1, "x": 1.0}', "'ts' is missing"),
    (with_(ts="yesterday"), "'ts' is not a valid timestamp"),
    (with_(ts=1.5), "'ts'"),
    (with_(ts=True), "'ts'"),
    (with_(ts=2**70), "'ts'"),
    (with_(ts="0001-01-01T00:00:00Z"), "'ts' is outside the source's range"),
    (with_(ts="9999-12-31T23:59:59.999999Z"), "'ts' is outside the source's range"),
    (with_(ts=-(2**63)), "'ts' is outside the source's range"),
    (with_(ts=2**63 - 1), "'ts' is outside the source's range"),
    (with_(ts=BASE + 11 * SECOND), "'ts' is more than 10 s in the future"),
    (with_(id=None), "null among the fields 'id'"),
    (with_(id="x"), "'id'"),
    (with_(id=1.0), "'id'"),
    (with_(id=True), "'id'"),
    (with_(id=2**63), "'id'"),
    (with_(id=[1]), "'id'"),
    (with_(x="much"), "'x'"),
    (with_(x=float("inf")), "'x' is too large"),
    (with_(x=-float("inf")), "'x' is too large"),
    (with_(x=1e12), "'x' is too large"),
    (with_(n=2**62), "'n' is too large"),
    (with_(n=2**64), "'n'"),
    (with_(n=10**400), "'n'"),
    (with_(s=7), "'s'"),
    (with_(s={"deep": {}}), "'s'"),
    (with_(s="\ud800"), "'s'"),
    (with_(event="\udfff"), "'event'"),
]


def test_4_4_rubbish_is_put_aside_with_a_reason_and_its_neighbours_are_taken(world: StreamWorld) -> None:
    broker = MemoryBroker(1)
    for number, (payload, _) in enumerate(POISON):
        broker.append(0, json.dumps(good(f"g{number}")).encode())
        broker.append(0, payload)
    broker.append(0, json.dumps(good("bad")).encode())  # a quarantined event does not claim its id
    broker.append(0, json.dumps({**good("late"), "x": float("nan"), "y": float("-inf")}).encode())
    world.clock.set(BASE)
    with world.store() as store:
        worker = world.worker(store, lambda owner: MemoryStream(broker, owner))
        drain(worker)
        assert worker.counts.rejected == len(POISON)
        assert worker.counts.accepted == len(POISON) + 2
        assert worker.counts.duplicates == 0
    (rows,) = world.logged().values()
    (name,) = world.logged()
    raw = [row for part in PartitionLog(world.state, name).read(columns=[RAW]) for row in part[RAW].to_pylist()]
    aside = [i for i, row in enumerate(rows) if row[REJECT] is not None]
    for i, (payload, reason) in zip(aside, POISON, strict=True):
        assert reason in rows[i][REJECT], (payload or b"")[:60]
        assert raw[i] == (payload and payload[:EVENT_BYTES])
    world.check(BASE + SECOND)


def test_the_message_in_quarantine_is_what_came() -> None:
    """To the last byte, up to the limit of a message; one without a body is null."""
    payloads: list[bytes | None] = [b"\xff" * 100_000, None, b"", b"{" + b" " * 70_000, b"x" * 200_001]
    rows = Decoder(SOURCE, [], 200_000).decode(payloads, range(len(payloads)), BASE)
    assert rows[RAW].to_pylist() == [*payloads[:4], b"x" * 200_000]
    assert "200001 bytes" in rows[REJECT][4].as_py()
