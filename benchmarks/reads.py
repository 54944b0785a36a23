"""Contestants of online reads and pushes: our project, Feast with any store, one bare MGET of the same rows."""

# ruff: noqa: PLC0415 - each contestant loads its own libraries, and nobody else's

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.digest import digest_matrix
from benchmarks.meter import Meter
from benchmarks.scale import rounds

SIZES = (1, 100, 500)
PUSHES = (1, 1_000)
MGET, KEPT, MATRIX = "MGET", "kept reader", "matrix"
_LAPS = 15
_PROBE = 200

Columns = dict[str, list[Any]]


def project_reads(meter: Meter, *, repo: str, url: str, n_entities: int) -> str:
    """Read entities into a matrix with our project, and their rows alone with one MGET, in turn."""
    import redis

    from benchmarks.stored import plan_of
    from skewless import Project
    from skewless.contract.keys import KeyCodec

    plan = plan_of(Path(repo))
    codecs = [KeyCodec(plan.project, view) for view in plan.views]
    with Project(repo, redis_url=url) as project, redis.Redis.from_url(url) as client:
        kept = project.feature_reader("all")
        for size in SIZES:
            asked = asked_columns(n_entities, size)
            keys = [[key for codec in codecs for key in codec.encode_columns(rows)] for rows in asked]
            project.online_features("all", asked[0])
            client.mget(keys[0])
            for _ in range(rounds(_LAPS)):
                with meter.lap(f"{size}", times=len(asked)):
                    for rows in asked:
                        project.online_features("all", rows)
                with meter.lap(f"{size} {KEPT}", times=len(asked)):
                    for columns in asked:
                        kept.read(kept.parse(columns), project.clock.now_us())
                with meter.lap(f"{size} {MGET}", times=len(asked)):
                    for names in keys:
                        client.mget(names)
        return digest_matrix(project.online_features("all", probe(n_entities)).matrix)


def feast_reads(meter: Meter, *, repo: str, n_entities: int, matrix: bool = False) -> str:
    """Read entities with ``get_online_features``.

    Args:
        matrix: measure besides how long it takes with the answer made a matrix.
    """
    from feast import FeatureStore

    store = FeatureStore(repo_path=repo)
    service = store.get_feature_service("all")
    for size in SIZES:
        asked = asked_columns(n_entities, size)
        store.get_online_features(service, asked[0])
        for _ in range(rounds(_LAPS)):
            with meter.lap(f"{size}", times=len(asked)):
                for rows in asked:
                    store.get_online_features(service, rows)
            if matrix:
                with meter.lap(f"{size} {MATRIX}", times=len(asked)):
                    for rows in asked:
                        _matrix(store.get_online_features(service, rows))
    return digest_matrix(_matrix(store.get_online_features(service, probe(n_entities))))


def feast_pushes(meter: Meter, *, repo: str, view: str, n_entities: int) -> str:
    """Push newer rows of a view, a few and many at once, and read them back."""
    import pandas as pd
    from feast import FeatureStore

    from benchmarks.repo import START_US

    store = FeatureStore(repo_path=repo)
    service = store.get_feature_service("all")
    fields = {item.name: str(item.dtype) for item in store.get_feature_view(view).features}
    rng = np.random.default_rng(5)
    now = pd.Timestamp(START_US + 10**12, unit="us", tz="UTC")
    for turn in range(rounds(_LAPS) + 1):
        for place, size in enumerate(PUSHES):
            ids = rng.choice(n_entities, min(size, n_entities), replace=False).astype(np.int64)
            frame = pd.DataFrame(
                {
                    "entity_id": ids,
                    "event_time": now + pd.Timedelta(minutes=turn, seconds=place),
                    **_fresh(rng, fields, len(ids)),
                }
            )
            if turn:
                with meter.lap(f"{size}"):
                    store.push(f"{view}_push", frame)
            else:
                store.push(f"{view}_push", frame)
    return digest_matrix(_matrix(store.get_online_features(service, probe(n_entities))))


def asked_columns(n_entities: int, size: int) -> list[Columns]:
    """Return the requests of one lap: ``size`` entities each, of which some are not there."""
    rng = np.random.default_rng(size)
    return [
        {"entity_id": rng.integers(0, n_entities * 51 // 50, size).tolist()} for _ in range(max(rounds(200) // size, 2))
    ]


def probe(n_entities: int) -> Columns:
    """Return the entities whose values are compared."""
    return {"entity_id": [*range(0, n_entities, max(n_entities // _PROBE, 1)), n_entities + 1]}


def _matrix(answer: Any) -> np.ndarray:  # noqa: ANN401 - Feast is imported by its contestants alone
    columns = answer.to_dict()
    del columns["entity_id"]
    return np.array([columns[name] for name in sorted(columns)], dtype=np.float64).T


def _fresh(rng: np.random.Generator, fields: dict[str, str], n: int) -> dict[str, np.ndarray]:
    return {name: rng.integers(0, 1_000, n) if kind == "Int64" else rng.normal(size=n) for name, kind in fields.items()}
