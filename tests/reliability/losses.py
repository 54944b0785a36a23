"""Servers that lose what they acknowledged, and the writes that they are to lose."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from skewless.contract.dtypes import DType
from skewless.contract.keys import marker_key
from skewless.contract.plan import View
from skewless.infra.reads.online.port import Marker
from skewless.infra.reads.online.redis_store import RedisReader
from tests.servers.node import Node
from tests.worlds.latest import HOUR, LatestRedisWorld, same, times
from tests.worlds.plans import make_view
from tests.worlds.waiting import until

FIRST = 1_000 * HOUR
DURABLE = {"appendonly": "yes", "appendfsync": "no", "aof-load-truncated": "yes", "auto-aof-rewrite-percentage": "0"}
VIEW = make_view("counted", path="counted.parquet", features={"x": DType.FLOAT64, "note": DType.STRING})


def write_rounds(world: LatestRedisWorld, rounds: int, keys: int, *, note: str = "") -> None:
    """Write a source in which every round brings a row of each key, published at ``round`` hours."""
    rows = [(key, number) for number in range(rounds) for key in range(keys)]
    moments = times(*((number + 1) * HOUR + key for key, number in rows))
    columns = {
        "id": pa.array([key for key, _ in rows], pa.int64()),
        "event": moments,
        "created": moments,
        "x": pa.array([key + number / 7 for key, number in rows], pa.float64()),
        "note": pa.array([f"{number}{note}" for _, number in rows], pa.string()),
    }
    world.write(VIEW.source.path, columns)


def materialize(world: LatestRedisWorld, rounds: int, keys: int, *, note: str = "") -> None:
    """Publish one more round and bring the store up to date."""
    write_rounds(world, rounds, keys, note=note)
    world.clock.set(FIRST + rounds)
    world.run(VIEW)


def agrees(world: LatestRedisWorld, keys: int, *, view: View = VIEW) -> bool:
    """Say whether the store holds what the log says, to the last bit."""
    ids = [[key] for key in range(keys)]
    return same(world.online(view, *ids), world.offline(view, *ids))


def journal(node: Node) -> Path:
    """Return the append-only file that a server writes."""
    (path,) = (node.folder / "appendonlydir").glob("*.incr.aof")
    return path


def lose(node: Node, keep: int) -> None:
    """Kill a server, cut its append-only file, and start it again: what was behind the cut never happened."""
    node.kill()
    with journal(node).open("r+b") as file:
        file.truncate(keep)
    node.start()


async def reader_marker(world: LatestRedisWorld, view: View = VIEW) -> int | None:
    """Return the position that a server of predictions sees."""
    mark = await reader_mark(world, view)
    return None if mark is None else mark.position


async def reader_mark(world: LatestRedisWorld, view: View = VIEW) -> Marker | None:
    """Return the position and watermark that a server of predictions sees."""
    reader = RedisReader(world.url)
    try:
        return (await reader.get_with_markers([], [marker_key(world.project, view)]))[1][0]
    finally:
        await reader.close()


@dataclass(frozen=True)
class OlderCopy:
    """A copy of a server's append-only files, to which the server is restored."""

    node: Node

    def take(self) -> None:
        """Copy the files as they are now."""
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.copytree(self.node.folder / "appendonlydir", self._folder)

    def restore(self) -> None:
        """Kill the server, and start it with the copy."""
        self.node.kill()
        shutil.rmtree(self.node.folder / "appendonlydir")
        shutil.copytree(self._folder, self.node.folder / "appendonlydir")
        self.node.start()
        until(lambda: not self.node.info("persistence")["loading"])

    @property
    def _folder(self) -> Path:
        return self.node.folder.with_name(f"{self.node.folder.name}-copy")
