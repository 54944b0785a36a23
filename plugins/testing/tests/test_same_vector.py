"""The vector of a test case is that of the offline join and of the online store, bit for bit."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plugins.testing.tests.small_project import (
    CARDS,
    DAY,
    MINUTE,
    NOW,
    random_tables,
    write_definitions,
    write_tables,
)
from skewless.contract.clock import OffsetClock
from skewless.infra.definitions.compiler.compile import compile_repo
from skewless.project import Project
from skewless_testing import FeatureCase

QUESTIONS = 80


def bits(value: object) -> object:
    """Return a value so that -0.0 differs from 0.0, and NaN is missing."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return float(value).hex() if isinstance(value, int | float) else value


def case_of(repo: Path, tables: dict[str, list[dict[str, Any]]]) -> FeatureCase:
    case = FeatureCase(compile_repo(repo).plan)
    for payment in tables["payments"]:
        event = {name: value for name, value in payment.items() if name != "written"}
        case.events("payments", event, known_at=payment["written"])
    case.rows("card_facts", *tables["facts"])
    case.rows("plain_facts", *tables["levels"])
    return case


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_a_vector_is_that_of_the_real_paths(tmp_path: Path, seed: int) -> None:
    repo = write_definitions(tmp_path / "repo")
    tables = random_tables(seed)
    write_tables(repo, tables)
    case = case_of(repo, tables)
    chance = random.Random(seed)
    asks = [(chance.choice([*CARDS, 77]), NOW - chance.randrange(DAY // MINUTE) * MINUTE) for _ in range(QUESTIONS)]
    amounts = [chance.choice([5.0, 0.0, 1e-300]) for _ in asks]
    OffsetClock.create(repo / ".skewless/clock").set(NOW + 5 * 3_600_000_000)
    project = Project(repo, clock=f"file:{repo}/.skewless/clock", threads=1)
    try:
        project.apply()
        project.import_events()
        project.backfill()
        project.materialize(check=False)
        offline = dataset(project, tmp_path, asks, amounts)
        for i, ((card, at), amount) in enumerate(zip(asks, amounts, strict=True)):
            vector = case.vector("all", {"card": card, "amount": amount}, at=at)
            expected = {label: bits(offline[label][i].as_py()) for label in vector}
            assert {label: bits(value) for label, value in vector.items()} == expected, (card, at, vector)
        assert all(offline[label].drop_null() for label in case.vector("all", card=1, amount=1.0, at=NOW))
        columns: dict[str, list[Any]] = {"card": list(CARDS), "amount": [5.0] * len(CARDS)}
        online = project.online_features("all", columns, vocabularies={"card_facts__country": ["", "DE"]})
        for i, card in enumerate(CARDS):
            vector = case.vector("all", card=card, amount=5.0, at=online.t)
            read = dict(zip(online.labels, online.matrix[i].tolist(), strict=True))
            country = read.pop("card_facts__country")
            assert vector["country"] == (None if np.isnan(country) else ["", "DE"][int(country)])
            shown = {label: bits(value) for label, value in vector.items() if label in read}
            assert shown == {label: bits(value) for label, value in read.items()}
            assert vector.status["card_facts"] in {"EXPIRED", "NOT_FOUND", "PRESENT"}
    finally:
        project.close()
        project.private.stop()


def dataset(project: Project, folder: Path, asks: list[tuple[int, int]], amounts: list[float]) -> pa.Table:
    """Return what training would see, in the order of the questions."""
    table = pa.table(
        {
            "number": list(range(len(asks))),
            "card": pa.array([card for card, _ in asks], pa.int64()),
            "event_timestamp": pa.array([at for _, at in asks], pa.int64()).cast(pa.timestamp("us", tz="UTC")),
            "amount": amounts,
        }
    )
    pq.write_table(table, folder / "asks.parquet")
    project.dataset(folder / "asks.parquet", "all", folder / "out")
    found = pa.concat_tables([pq.read_table(path) for path in sorted((folder / "out").rglob("*.parquet"))])
    return found.sort_by("number")
