"""What an online store holds after a load, as a digest of decoded values: the same whoever loaded it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import redis
from pyarrow import feather

from benchmarks.digest import digest_columns
from skewless.contract.keys import KeyCodec
from skewless.contract.plan import FeaturePlan
from skewless.contract.rows import RowCodec
from skewless.infra.definitions.plans.applied_plan import read_applied
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.redis_store import BlockingReader

_SAMPLE = 1_000
_BATCH = 1_000


def sample(n_entities: int) -> list[int]:
    """Return the entities that are compared: about a thousand of all, and one that is not there."""
    return [*range(0, n_entities, max(n_entities // _SAMPLE, 1)), n_entities + 1]


def plan_of(repo: Path) -> FeaturePlan:
    """Return the plan in force in a repo."""
    applied = read_applied(ProjectState(repo / ".skewless"))
    assert applied is not None
    return applied.plan


def stored_digest(repo: Path, url: str, n_entities: int) -> str:
    """Return the digest of the sample's values, by feature."""
    plan, reader = plan_of(repo), BlockingReader(url)
    columns: dict[str, Any] = {}
    for view in plan.views:
        keys = KeyCodec(plan.project, view).encode_columns({"entity_id": sample(n_entities)})
        read = RowCodec(view).decode(reader.get([key for key in keys if key is not None]))
        for feature in view.features:
            columns[feature.name] = pa.array(read.values[feature.name], mask=read.nulls[feature.name])
    reader.close()
    return digest_columns(columns)


def save_ready(url: str, path: Path) -> None:
    """Write the keys and rows that a server holds to a file, sorted by key, markers left out."""
    with redis.Redis.from_url(url) as client:
        names = sorted(key for key in client.scan_iter(count=10_000) if b"}" in key)
        parts = [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
        rows = [row for part in parts for row in client.mget(part)]
    table = pa.table({"key": pa.array(names, pa.large_binary()), "row": pa.array(rows, pa.large_binary())})
    feather.write_feather(table, str(path), compression="uncompressed")


def load_ready(path: str) -> tuple[pa.Array, pa.Array]:
    """Return the keys and rows of such a file."""
    table = feather.read_table(path, memory_map=False)
    return table["key"].combine_chunks(), table["row"].combine_chunks()
