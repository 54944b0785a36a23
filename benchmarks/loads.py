"""Contestants of materialisation: ours, Feast's, and bare writes of bytes made ready ahead."""

# ruff: noqa: PLC0415 - each contestant loads its own libraries, and nobody else's

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import redis

from benchmarks.digest import digest_columns
from benchmarks.meter import Meter
from benchmarks.server import bytes_per_key, empty, used_bytes

KEYS_PER_CALL = 100
_PIPELINE = 1_000
_SCRIPT = Path(__file__).parents[1] / "infra" / "reads" / "online" / "newer_wins.lua"


@contextmanager
def fresh(repo: str) -> Iterator[Path]:
    """Yield a copy of an applied repo that was never materialised."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(repo, Path(folder) / "repo"))


def skewless(meter: Meter, *, repo: str, url: str, n_entities: int, watch: bool = False) -> str:
    """Materialise everything with the code of ``skewless materialize``."""
    from benchmarks.series import Series
    from benchmarks.stored import stored_digest
    from skewless import Project

    empty(url)
    before = used_bytes(url)
    with fresh(repo) as copy, Project(copy, redis_url=url) as project:
        project.materializer  # noqa: B018 - opens the database and the store before the clock runs
        series = Series(url) if watch else None
        with meter.lap():
            project.materialize(check=False)
        if series is not None:
            series.finish(meter)
        meter.note("bytes_per_key", bytes_per_key(url, before))
        return stored_digest(copy, url, n_entities)


def feast(meter: Meter, *, repo: str, url: str, n_entities: int) -> str:
    """Materialise everything with ``FeatureStore.materialize``."""
    from feast import FeatureStore

    from benchmarks.stored import sample

    empty(url)
    before = used_bytes(url)
    with fresh(repo) as copy:
        store = FeatureStore(repo_path=str(copy))
        service = store.get_feature_service("all")
        with meter.lap():
            store.materialize(datetime(2024, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))
        meter.note("bytes_per_key", bytes_per_key(url, before))
        asked = [{"entity_id": number} for number in sample(n_entities)]
        columns = store.get_online_features(service, asked).to_dict()
    del columns["entity_id"]
    return digest_columns(columns)


def plain_set(meter: Meter, *, repo: str, url: str, n_entities: int, ready: str) -> str:
    """Write the rows with SET through redis-py's pipeline."""
    from benchmarks.stored import load_ready, stored_digest

    keys, rows = (column.to_pylist() for column in load_ready(ready))
    empty(url)
    with redis.Redis.from_url(url) as client, meter.lap():
        for start in range(0, len(keys), _PIPELINE):
            pipe = client.pipeline(transaction=False)
            for key, row in zip(keys[start : start + _PIPELINE], rows[start : start + _PIPELINE], strict=True):
                pipe.set(key, row)
            pipe.execute()
    return stored_digest(Path(repo), url, n_entities)


def wire_set(meter: Meter, *, repo: str, url: str, n_entities: int, ready: str) -> str:
    """Write the rows with SET commands that lie ready."""
    from benchmarks.stored import load_ready, stored_digest
    from benchmarks.wire import push, set_commands

    keys, rows = load_ready(ready)
    commands = set_commands(keys, rows)
    empty(url)
    with meter.lap():
        push(url, commands, len(keys))
    return stored_digest(Path(repo), url, n_entities)


def plain_script(meter: Meter, *, repo: str, url: str, n_entities: int, ready: str, per_call: int) -> str:
    """Write the rows with calls of the compare-and-set script through redis-py's pipeline.

    Args:
        per_call: keys of one call.
    """
    from benchmarks.stored import load_ready, stored_digest

    keys, rows = (column.to_pylist() for column in load_ready(ready))
    empty(url)
    with redis.Redis.from_url(url) as client:
        sha = client.script_load(_SCRIPT.read_text())
        with meter.lap():
            for first in range(0, len(keys), _PIPELINE):
                pipe = client.pipeline(transaction=False)
                for start in range(first, min(first + _PIPELINE, len(keys)), per_call):
                    names = keys[start : start + per_call]
                    pipe.evalsha(sha, len(names), *names, *rows[start : start + per_call])
                pipe.execute()
    return stored_digest(Path(repo), url, n_entities)


def wire_script(meter: Meter, *, repo: str, url: str, n_entities: int, ready: str) -> str:
    """Write the rows with calls of the compare-and-set script that lie ready."""
    from benchmarks.stored import load_ready, stored_digest
    from benchmarks.wire import push, script_commands

    keys, rows = load_ready(ready)
    empty(url)
    with redis.Redis.from_url(url) as client:
        sha = client.script_load(_SCRIPT.read_text())
    commands = script_commands(sha if isinstance(sha, bytes) else sha.encode(), keys, rows, KEYS_PER_CALL)
    with meter.lap():
        push(url, commands, -(-len(keys) // KEYS_PER_CALL))
    return stored_digest(Path(repo), url, n_entities)
