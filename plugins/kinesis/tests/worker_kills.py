"""Workers of a Kinesis stream in processes of their own, which a test kills."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import skewless.infra.ingest.streams.worker
from plugins.kinesis.tests.kinesis_place import KinesisPlace
from skewless.contract.clock import ManualClock
from skewless.infra.log.log_columns import REJECT
from skewless_kinesis.client import KinesisClient
from skewless_kinesis.stream import KinesisStream
from tests.servers.aws import REGION
from tests.worlds.streams import IDS, SOURCE, StreamWorld
from tests.worlds.waiting import until

# Without ids: only positions keep a message from counting twice.
WITHOUT_IDS = replace(SOURCE, id_column=None)


def world_at(root: Path, url: str) -> StreamWorld:
    return StreamWorld(root=root, url=url, source=WITHOUT_IDS)


def work(root: str, url: str, now_us: int, stream: str) -> None:
    """Work until this process is killed."""
    skewless.infra.ingest.streams.worker._LINGER_S = 0.0
    world = replace(world_at(Path(root), url), clock=ManualClock(now_us))
    with world.store() as store:
        worker = world.worker(
            store,
            lambda owner: KinesisStream(
                KinesisClient(REGION, stream), database=world.state.database, source="s", owner=owner, interval_s=0.01
            ),
            max_rows=20,
        )
        worker.run(lambda: True)


def run_kills(kinesis_place: KinesisPlace, world: StreamWorld, kills: int, seed: int) -> int:
    """Kill one of two workers again and again while messages are sent and shards split; return the messages."""
    chance, n = random.Random(seed), 0
    call = (str(world.root), world.url, world.clock.now_us(), kinesis_place.name)
    code = f"from {__name__} import work; work{call!r}"
    world.ensure()

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code])

    def send() -> None:
        nonlocal n
        keys = [chance.randrange(IDS) for _ in range(40)]
        bodies = [
            {"event": f"e{n + i}", "id": key, "ts": world.clock.now_us(), "x": chance.random(), "n": n + i}
            for i, key in enumerate(keys)
        ]
        sender = kinesis_place.sender()
        sender.send([json.dumps(body).encode() for body in bodies], [str(key) for key in keys])
        sender.close()
        n += 40

    workers = [start(), start()]
    try:
        for turn in range(kills):
            begun = count_logged(world)
            send()
            until(lambda begun=begun: count_logged(world) > begun)  # type: ignore[misc]
            for _ in range(chance.randrange(4)):
                send()
            if turn % 4 == 1:
                kinesis_place.split(turn // 4)
            time.sleep(chance.uniform(0, 0.2))
            victim = workers.pop(chance.randrange(2))
            victim.kill()
            victim.wait()
            workers.append(start())
        until(lambda: count_logged(world) >= n)
        time.sleep(0.5)  # whatever came twice would come now
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    return n


def count_logged(world: StreamWorld) -> int:
    return sum(map(len, world.logged().values()))


def check_once(world: StreamWorld, n: int) -> None:
    """Assert that each message was accepted once, those of a key in order over all shards, and that states agree."""
    rows = [row for rows in world.logged().values() for row in rows]
    assert [row for row in rows if row[REJECT] is not None] == []
    assert sorted(row["n"] for row in rows) == list(range(n))
    for part in world.logged().values():
        for key in range(IDS):
            numbers = [row["n"] for row in part if row["id"] == key]
            assert numbers == sorted(numbers)
