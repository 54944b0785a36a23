"""A worker that decides events and delivers the decisions, under the eyes of ``kills``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import skewless_decisions.delivery
from plugins.decisions.tests.deciding import ALL, DecidingWorld
from skewless.contract.clock import ManualClock
from skewless.contract.errors import StoreError
from skewless.contract.sinks import RedisStreamSink
from skewless.infra.ingest.streams import worker as stream_worker
from skewless.infra.ingest.streams.port import OpenStream
from skewless.infra.ingest.streams.worker import Worker
from skewless_decisions.message_sinks import RedisDelivery
from skewless_decisions.opening import Deciders
from tests.reliability.kills import Steps
from tests.reliability.stream_kills import FileStream, hasten, open_stream
from tests.servers.node import Node
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.streams import busy
from tests.worlds.waiting import PATIENCE_S

OUT = "out"
_BATCH = 11  # messages: so that a small run has several steps of each kind
_RETRY_S = 0.02


def deciding_world(root: Path, url: str, **parts: Any) -> DecidingWorld:  # noqa: ANN401 - of the deciding
    """Return a project whose decisions go to a Redis stream of its own."""
    sink = RedisStreamSink(name=OUT, stream=f"{OUT}-{root.name}")
    return DecidingWorld(root=root, url=url, decisions=(replace(ALL, sinks=(sink,)),), **parts)


def has_more(worker: Worker, deciders: Deciders) -> bool:
    """Return whether an event is not taken, decided and applied, or a decision is not delivered."""
    assert worker.decider is not None
    return busy(worker) or any(counts.lag != 0 for counts in worker.decider.counts) or not deciders.is_idle()


def work(
    deciding: DecidingWorld,
    stream: OpenStream,
    goes_on: Callable[[Worker, Deciders], bool] = has_more,
    *,
    max_rows: int = _BATCH,
    patience_s: float = PATIENCE_S,
) -> None:
    """Take, decide, apply and deliver events while there is more to do, or another condition holds.

    Args:
        max_rows: in a batch.
        patience_s: for how long.
    """
    with deciding.store() as store, deciding.deciders() as deciders:
        worker = deciding.worker(store, stream, max_rows=max_rows)
        decider = deciders.open(deciding.plan, deciding.source, deciding.decisions, store)
        assert decider is not None
        worker.set_decider(decider)
        deadline = time.monotonic() + patience_s
        try:
            worker.step()
            while goes_on(worker, deciders):
                assert time.monotonic() < deadline, (worker.counts, decider.counts)
                worker.step()
        finally:
            worker.close()
            decider.close()


def delivered(node: Node, deciding: DecidingWorld) -> Sequence[str]:
    """Return the ids that the sink has received, in their order."""
    with node.client() as client:
        entries: Any = client.xrange(f"{OUT}-{deciding.root.name}")
    return [entry[b"id"].decode() for _, entry in entries]


def order_of(deciding: DecidingWorld) -> dict[str, Any]:
    """Return the order to work on a world."""
    addresses = asdict(deciding.addresses)
    sink = {"sink_url": deciding.broker_url}
    return {
        "root": str(deciding.root),
        "url": deciding.url,
        "now_us": deciding.clock.now_us(),
        "addresses": addresses,
        **sink,
    }


def act(steps: Steps, order: dict[str, Any]) -> None:
    """Do the work of ``work``."""
    quicken()
    clock, addresses = ManualClock(order["now_us"]), ProjectAddresses(**order["addresses"])
    sink_url = order["sink_url"]
    deciding = deciding_world(Path(order["root"]), order["url"], clock=clock, addresses=addresses, broker_url=sink_url)
    steps.watch(deciding.root)
    steps.wrap(FileStream, "commit", lambda *_: "commit")
    steps.wrap(RedisDelivery, "send", lambda *_: "send")
    supervise(lambda: work(deciding, open_stream(deciding.root)))


def supervise(run: Callable[[], None]) -> None:
    """Start a worker again until it ends: it does not start without its store."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            run()
        except StoreError:
            assert time.monotonic() < deadline
            time.sleep(_RETRY_S)
        else:
            return


def quicken() -> None:
    """Make batches small, states long soon, and retries fast, in this process."""
    hasten()
    stream_worker._RETRY_S = _RETRY_S
    skewless_decisions.delivery._COUNT_S = 0.0
    skewless_decisions.delivery._FIRST_RETRY_S = _RETRY_S
