"""Contestants of the state layout: they reach a release by its commands and its public Python alone.

So the same program runs on the code of older commits.
"""

# ruff: noqa: PLC0415 - skewless is that of the contestant, which the parent does without

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow.parquet as pq
import redis

from benchmarks.contestant import ContestantError
from benchmarks.digest import digest_columns, digest_matrix
from benchmarks.meter import Meter
from benchmarks.server import empty, free_port
from benchmarks.state_layout_project import ASKED, LABELS, MORE, N_KEYS

if TYPE_CHECKING:
    from skewless import Project

PARTITIONS, PER_SECOND = 64, 10
_CHECKED = 500
_CHUNK = 1_000
_STREAM = "sk:bench:events:{payments:%d}"
_PROGRAM = "from skewless.cli import main; main()"
_BATCHES = re.compile(r"^skewless_stream_batches_total\S* (\S+)$", re.MULTILINE)
_FIRST_MARKED = 1_000_000_000
_TICK_S = 1 / PER_SECOND
_LOOK_S = 0.01
_LOST_S = 60.0


def batch(meter: Meter, *, source: str, url: str, shared: dict[str, str]) -> str:
    """Materialize twice, import, build sets, train, predict and replay; return the digest of the values."""
    with _project(source, url, shared) as project:
        project.apply()
        with meter.lap("materialize"):
            project.materialize(check=False)
        shutil.copy(project.repo / "data" / MORE, project.repo / "data" / "cards" / MORE)
        with meter.lap("materialize again"):
            project.materialize(check=False)
        with meter.lap("import"):
            project.import_events()
        with meter.lap("backfill"):
            project.backfill()
        with meter.lap("training set"):
            trained = project.training_set("fraud")
        with meter.lap("dataset"):
            project.dataset(project.repo / "data" / LABELS, "both", project.repo / "rows", time="paid_at")
        with meter.lap("train"):
            project.train("fraud")
        out = project.repo / "scores.parquet"
        with meter.lap("predict"):
            project.predict_file("fraud", project.repo / "data" / ASKED, out)
        with meter.lap("replay"):
            proof = project.replay()
        if not proof.ok:
            raise ContestantError("\n".join(proof.lines()))
        rows = pq.read_table(sorted((project.repo / "rows").glob("part-*.parquet")))
        values = {name: rows[name] for name in rows.column_names if name.startswith(("cards__", "live__"))}
        parts = [digest_matrix(trained.matrix), digest_columns(values), str(proof.compared)]
        parts.append(digest_columns({"score": pq.read_table(out)["score"]}))
        parts.append(_online(project, "both"))
    return " ".join(parts)


def stream(meter: Meter, *, source: str, url: str, shared: dict[str, str], n: int) -> str:
    """Ingest events that wait in a Redis stream; return the digest of states."""
    with _project(source, url, shared) as project:
        project.apply()
        project.backfill()
        _send(url, _events(n))
        with meter.lap("stream"):
            (counts,) = project.stream(until_idle=True)
        if counts.accepted != n:
            raise ContestantError(f"{counts.accepted} of {n} events were accepted")
        return _online(project, "windows")


def segments(meter: Meter, *, source: str, url: str, shared: dict[str, str], seconds: int) -> str:
    """Send an event to each partition ten times a second, to a worker of its own process; watch when some are seen."""
    with _project(source, url, shared) as project:
        project.apply()
        project.backfill()
        port = free_port()
        environment = {"SKEWLESS_REDIS_URL": url, "SKEWLESS_STREAM_PARTITIONS": str(PARTITIONS)}
        command = ["stream", "--repo", str(project.repo), "--metrics-port", str(port), "--json"]
        worker = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *command],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            watch = _Watch(project, url)
            watch.send(_FIRST_MARKED - PARTITIONS)
            watch.wait(worker)
            watch.waits.clear()
            before, begin = _batches(port), time.perf_counter()
            ticks = seconds * PER_SECOND
            for tick in range(ticks):
                watch.look_until(begin + tick * _TICK_S)
                watch.send(_FIRST_MARKED + tick * PARTITIONS)
            sent = time.perf_counter() - begin
            watch.wait(worker)
            meter.note("caught up", time.perf_counter() - begin - sent)
            meter.note("segments", (_batches(port) - before) / (time.perf_counter() - begin))
            meter.note("sent", ticks * PARTITIONS / sent)
        finally:
            worker.terminate()
            worker.wait(_LOST_S)
        meter.note("p50", float(np.percentile(watch.waits, 50)) * 1e3)
        meter.note("p99", float(np.percentile(watch.waits, 99)) * 1e3)
        return str(len(watch.waits))


class _Watch:
    """Sends an event of a new key to each partition, and notes when each is seen."""

    def __init__(self, project: Project, url: str) -> None:
        self._project = project
        self._client: Any = redis.Redis.from_url(url)
        self._waiting: dict[int, float] = {}
        self.waits: list[float] = []

    def send(self, first: int) -> None:
        """Send one event to each partition."""
        pipe, now = self._client.pipeline(transaction=False), time.time_ns() // 1_000
        for index in range(PARTITIONS):
            event = {"entity_id": first + index, "amount": 1.0, "ts": now}
            pipe.execute_command("XADD", _STREAM % index, "*", "e", orjson.dumps(event))
        begin = time.perf_counter()
        pipe.execute()
        self._waiting.update(dict.fromkeys(range(first, first + PARTITIONS), begin))

    def look_until(self, due: float) -> None:
        """Look for events until a time."""
        while (now := time.perf_counter()) < due:
            self._look()
            time.sleep(min(_LOOK_S, max(due - now, 0.0)))

    def wait(self, worker: subprocess.Popen[bytes]) -> None:
        """Look until all are seen.

        Raises:
            ContestantError: the worker ended, or events were not seen within a minute.
        """
        begin = time.perf_counter()
        while self._waiting:
            if worker.poll() is not None or time.perf_counter() - begin > _LOST_S:
                raise ContestantError(f"{len(self._waiting)} events were not seen")
            self.look_until(time.perf_counter() + _LOOK_S)

    def _look(self) -> None:
        if not self._waiting:
            return
        keys = list(self._waiting)
        seen = self._project.online_features("windows", {"entity_id": keys})
        counts = seen.matrix[:, seen.labels.index("live__count_1d")]
        now = time.perf_counter()
        for key, count in zip(keys, counts.tolist(), strict=True):
            if count == 1.0:
                self.waits.append(now - self._waiting.pop(key))


@contextmanager
def _project(source: str, url: str, shared: dict[str, str]) -> Iterator[Project]:
    """Yield a new copy of the project, with an empty Redis; a shared one has a schema and a folder of its own."""
    for name in [name for name in os.environ if name.startswith("SKEWLESS_")]:
        del os.environ[name]
    unique = uuid.uuid4().hex
    os.environ.update({name: address.replace("UNIQUE", unique) for name, address in shared.items()})
    from skewless import Project

    empty(url)
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder) / "repo"
        shutil.copytree(source, repo)
        with Project(repo, redis_url=url) as project:
            yield project


def _online(project: Project, service: str) -> str:
    """Return the digest of the online features of some entities; windows that move in time are omitted."""
    read = project.online_features(service, {"entity_id": list(range(_CHECKED))})
    stable = [place for place, name in enumerate(read.labels) if not name.endswith("_1d")]
    return digest_matrix(read.matrix[:, stable])


def _events(n: int) -> list[bytes]:
    rng = np.random.default_rng(4)
    ids, amounts = rng.integers(0, N_KEYS, n).tolist(), np.round(rng.gamma(2.0, 40.0, n), 2).tolist()
    begin = time.time_ns() // 1_000 - n * 500
    return [
        orjson.dumps({"entity_id": key, "amount": amount, "ts": begin + place * 500})
        for place, (key, amount) in enumerate(zip(ids, amounts, strict=True))
    ]


def _send(url: str, payloads: list[bytes]) -> None:
    client: Any = redis.Redis.from_url(url)
    with client:
        for start in range(0, len(payloads), _CHUNK):
            pipe = client.pipeline(transaction=False)
            for payload in payloads[start : start + _CHUNK]:
                pipe.execute_command("XADD", _STREAM % 0, "*", "e", payload)
            pipe.execute()


def _batches(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        return sum(map(float, _BATCHES.findall(reply.read().decode())))
