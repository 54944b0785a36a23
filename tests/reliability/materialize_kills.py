"""A materialization under the eyes of ``kills``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import skewless.infra.ingest.materialization.latest_rows
import skewless.infra.ingest.materialization.materialize
from skewless.contract.clock import ManualClock
from skewless.infra.log.partition_log import StagedRows
from skewless.infra.reads.online.redis_store import RedisWriter
from tests.reliability.kills import Steps
from tests.reliability.losses import VIEW
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.latest import LatestRedisWorld

_BATCH = 7  # rows: so that a small run has several steps of each kind


def order_of(latest: LatestRedisWorld) -> dict[str, Any]:
    """Return the order to materialize a project."""
    addresses = asdict(latest.addresses)
    return {"root": str(latest.root), "url": latest.url, "now_us": latest.clock.now_us(), "addresses": addresses}


def act(steps: Steps, order: dict[str, Any]) -> None:
    """Materialize once."""
    root, clock, addresses = Path(order["root"]), ManualClock(order["now_us"]), ProjectAddresses(**order["addresses"])
    world = LatestRedisWorld(root=root, url=order["url"], clock=clock, addresses=addresses)
    skewless.infra.ingest.materialization.materialize._BATCH_ROWS = _BATCH
    skewless.infra.ingest.materialization.latest_rows._BATCH_ROWS = _BATCH
    steps.watch(world.state)
    steps.wrap(StagedRows, "write", lambda *_: "write-draft")
    for name in ("put", "set_markers"):
        steps.wrap(RedisWriter, name, lambda *_, name=name: name)
    world.run(VIEW)
