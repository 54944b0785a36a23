"""A materialisation in a process of its own that kills itself at a chosen durable step."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from tests.integration.infra.world import HOUR, World, same, times
from tests.plans import make_view

ROOT = Path(__file__).parents[3]
NOW = 100 * HOUR
CREATED = make_view("created", path="created.parquet")

KILLED = """
import os, sys
from pathlib import Path
import pyarrow.parquet as pq
from infra.log import accepted
from infra.online.redis_store import RedisWriter
from skewless.clock import ManualClock
from tests.integration.infra.killed import CREATED
from tests.integration.infra.world import World
calls, at = [0], int(sys.argv[4])
def dying(owner, name):
    real = getattr(owner, name)
    def call(*arguments, **keywords):
        calls[0] += 1
        if calls[0] == at:
            os.kill(os.getpid(), 9)
        return real(*arguments, **keywords)
    setattr(owner, name, call)
for owner, name in ((os, "fsync"), (os, "link"), (Path, "replace"), (RedisWriter, "put"), (RedisWriter, "set_marker")):
    dying(owner, name)
World(root=Path(sys.argv[1]), url=sys.argv[2], clock=ManualClock(int(sys.argv[3]))).run(CREATED)
"""


def killed_again_and_again(world: World, steps: Sequence[int]) -> Counter[int]:
    """Kill one run per step, let the next one make it good, and compare both stores; return exit codes.

    Each round brings one row of a new key and one newer row of key 0.
    """
    rows = [(0, 1, 0.0)]
    _write(world, rows)
    world.run(CREATED)
    codes: Counter[int] = Counter()
    for number, step in enumerate(steps, start=1):
        rows += [(number, number + 1, float(number)), (0, number + 1, float(number))]
        _write(world, rows)
        world.clock.set(NOW + 2 * number)
        arguments = [str(world.root), world.url, str(world.clock.now_us()), str(step)]
        codes[subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, check=False).returncode] += 1
        world.clock.set(NOW + 2 * number + 1)
        world.run(CREATED)
        keys = [[key] for key in range(number + 1)]
        read = world.online(CREATED, *keys)
        assert same(read, world.offline(CREATED, *keys))
        assert read.values["x"][[0, number]].tolist() == [float(number)] * 2
    _check_log(world, rows)
    return codes


def shuffled_steps(last: int, times_each: int, seed: int) -> list[int]:
    """Return every step up to the last, several times each, in a random order."""
    steps = [step for step in range(1, last + 1) for _ in range(times_each)]
    random.Random(seed).shuffle(steps)
    return steps


def _write(world: World, rows: Sequence[tuple[int, int, float]]) -> None:
    key, hour, value = zip(*rows, strict=True)
    moments = times(*(each * HOUR for each in hour))
    columns = {
        "id": pa.array(key, pa.int64()),
        "event": moments,
        "created": moments,
        "x": pa.array(value, pa.float64()),
    }
    world.write(CREATED.source.path, columns)


def _check_log(world: World, rows: Sequence[tuple[int, int, float]]) -> None:
    log = world.log(CREATED)
    assert log["__seq"].to_pylist() == list(range(len(rows)))
    # Each row was accepted once, whatever died in between.
    assert len(set(zip(log["id"].to_pylist(), log["x"].to_pylist(), strict=True))) == len(rows)
    assert world.known(CREATED)[-1].last == len(rows) - 1


KILL = -signal.SIGKILL
