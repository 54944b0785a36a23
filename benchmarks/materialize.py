"""Newer-wins writes of packed rows against plain SET of the same bytes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import redis

from benchmarks.result import Result, in_turn
from infra.online.private_server import PrivateServer
from infra.online.redis_store import RedisWriter
from skewless.dtypes import DType
from skewless.keys import KeyCodec
from skewless.plan import Column, Source, View
from skewless.rows import NO_TIME, RowCodec, Versions

ROWS = 100_000
VIEW = View(
    name="wide",
    keys=(Column(name="id", dtype=DType.INT64),),
    features=tuple(Column(name=f"f{i}", dtype=DType.FLOAT64) for i in range(30)),
    source=Source(path="-", event_column="event_time", columns={}),
    ttl_us=0,
    delay_us=0,
    freshness_us=0,
)


def run() -> list[Result]:
    """Write 100 k entities of 30 features, each time one version newer."""
    values = {f"f{i}": np.random.default_rng(i).normal(size=ROWS) for i in range(30)}
    nulls = {name: np.zeros(ROWS, dtype=np.bool_) for name in values}
    names = [key for key in KeyCodec("bench", VIEW).encode_columns({"id": range(ROWS)}) if key is not None]
    codec, version = RowCodec(VIEW), iter(range(1_000_000))
    with tempfile.TemporaryDirectory() as folder:
        server = PrivateServer(Path(folder))
        url = server.ensure()
        writer, client = RedisWriter(url), redis.Redis.from_url(url)

        def rows() -> list[bytes]:
            now = np.full(ROWS, next(version), dtype=np.int64)
            none = np.full(ROWS, NO_TIME, dtype=np.int64)
            flags = np.zeros(ROWS, dtype=np.bool_)
            return codec.encode(
                Versions(event_ts=now, created_ts=none, seq=now, run_id=now, tombstone=flags), values, nulls
            )

        def ours() -> int:
            return writer.put(names, rows())

        def plain() -> None:
            packed = rows()
            for start in range(0, ROWS, 1_000):
                pipe = client.pipeline(transaction=False)
                for key, row in zip(names[start : start + 1_000], packed[start : start + 1_000], strict=True):
                    pipe.set(b"plain" + key, row)
                pipe.execute()

        assert ours() == ROWS
        assert client.get(names[7]) is not None
        seconds, ratio = in_turn(ours, plain, runs=3)
        client.close()
        server.stop()
    return [
        Result(
            name="pack and write 100 k x 30, newer wins",
            value=ROWS / seconds,
            unit="rows/s",
            against="the same packed, redis-py SET",
            ratio=ratio,
        )
    ]
