"""Records as a server makes them, of any size and kind, and the rows that they must become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from skewless.contract.rows import Versions
from skewless.contract.windows.tiles import AppliedPositions
from skewless.infra.reads.online.state_reader import StateProgress
from skewless.infra.records.predictions.record import LoadColumns, PredictionBatch

T = 1_768_478_400_000_000
FIELDS = ("event_ts", "created_ts", "seq", "run_id")


def origin(version: str = "000001", views: tuple[str, ...] = ("card", "shop")) -> LoadColumns:
    return LoadColumns(
        model="fraud",
        version=version,
        runtime_id="lightgbm-capi-4.7.0",
        tolerance=0.0,
        plan_hash="ef" * 16,
        transform_hashes=("01" * 16, "02" * 16),
        missing="null",
        views=tuple((view, view.encode().hex()) for view in views),
    )


def record(of: LoadColumns, n: int, seed: int, *, outputs: int = 1, windowed: tuple[str, ...] = ()) -> PredictionBatch:
    """Return predictions of n entities."""
    chance = np.random.default_rng(seed)
    names = [view for view, _ in of.views]
    matrix = chance.random((n, 5))
    matrix[chance.random((n, 5)) < 0.2] = np.nan
    scores = chance.random((n, outputs)) if outputs > 1 else chance.random(n)
    return PredictionBatch(
        origin=of,
        ids=[f"{seed}-{i:x}" for i in range(n)],
        t=T + seed * 1_000,
        asked_at=T + seed * 1_000 + 7,
        read_start=T + seed * 1_000 + 8,
        read_end=T + seed * 1_000 + 300,
        skew_us=-seed,
        inputs=[f'{{"card":{i},"name":"Zürich 日本"}}'.encode() for i in range(n)],
        matrix=matrix,
        scores=scores,
        status=chance.integers(0, 6, (n, len(names))).astype(np.uint8),
        versions={name: _versions(chance, n) for name in names},
        applied={name: _applied(chance, n) for name in windowed},
        watermarks=np.array([chance.choice([0, T - i]) for i, _ in enumerate(names)], dtype=np.int64),
    )


def vector_record(of: LoadColumns, n: int, seed: int) -> PredictionBatch:
    """Return predictions of n vectors."""
    given = record(of, n, seed)
    rows = [str(row.tolist()).replace("nan", "null").encode() for row in given.matrix]
    nothing: dict[str, Any] = {"status": np.empty((n, 0), np.uint8), "versions": {}, "applied": {}}
    nothing["watermarks"] = np.empty(0, np.int64)
    return given._replace(source="vectors", inputs=rows, **nothing)


def rows_of(given: PredictionBatch) -> list[dict[str, Any]]:
    """Return what the log must say, one prediction at a time; without its seal."""
    return [_row(given, i) for i in range(len(given.ids))]


def _row(given: PredictionBatch, i: int) -> dict[str, Any]:
    of = [own for own, n in given.origins for _ in range(n)][i] if given.origins else given.origin
    scores = given.scores[i].tolist()
    several = isinstance(scores, list)
    return {
        "id": given.ids[i],
        "watermarks": [moment or None for moment in given.watermarks.tolist()],
        "t": given.t,
        "asked_at": given.asked_at,
        "read_start": given.read_start,
        "read_end": given.read_end,
        "model": of.model,
        "version": of.version,
        "runtime_id": of.runtime_id,
        "tolerance": of.tolerance,
        "plan_hash": of.plan_hash,
        "transform_hashes": list(of.transform_hashes),
        "missing": of.missing,
        "skew_us": given.skew_us,
        "source": given.source,
        "inputs": given.inputs[i].decode(),
        "reads": [_read(given, i, place) for place in range(len(given.versions))],
        "vector": [repr(value) for value in given.matrix[i].tolist()],
        "score": max(scores) if several else scores,
        "scores": scores if several else None,
        "format": 1,
        "role": of.role,
        "policy": of.policy,
        "narrow": given.narrow,
        "trace_id": (given.trace_ids[i] or None) if given.trace_ids else None,
        "event": None,
        "action": given.actions[i] if given.actions else None,
        "propensity": given.propensities[i] if given.propensities else None,
        "reasons": list(given.reasons[i]) if given.reasons else None,
        "lists": json.dumps(given.lists, separators=(",", ":"), sort_keys=True) if given.lists else None,
    }


def _read(given: PredictionBatch, i: int, place: int) -> dict[str, Any]:
    name, digest = given.origin.views[place]
    found: Mapping[str, int] = {field: int(getattr(given.versions[name], field)[i]) for field in FIELDS}
    read = {"view": name, "hash": digest, "status": int(given.status[i, place]), **found}
    if name not in given.applied:
        return read | {"generation": None, "applied": None}
    slots = given.applied[name].slots
    mine = [
        {"partition": int(slots.partition[j]), "seq": int(slots.seq[j])} for j in range(len(slots.seq))
        if slots.entity[j] == i
    ]  # fmt: skip
    return read | {"generation": given.applied[name].generation, "applied": mine}


def _versions(chance: np.random.Generator, n: int) -> Versions:
    numbers = {field: chance.integers(-(2**63), 2**63 - 1, n) for field in FIELDS}
    return Versions(**numbers, tombstone=np.zeros(n, dtype=np.bool_))


def _applied(chance: np.random.Generator, n: int) -> StateProgress:
    entity = np.sort(chance.integers(0, n, 2 * n))
    numbers = [chance.integers(-(2**63), 2**63 - 1, 2 * n) for _ in range(3)]
    slots = AppliedPositions(entity=entity, partition=numbers[0], first=numbers[1], seq=numbers[2])
    return StateProgress(generation=int(chance.integers(1, 100)), slots=slots)
