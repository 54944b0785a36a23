"""A project whose users visit shops: each event counts for both, so that an erased user changes windows of shops."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.contract.clock import OffsetClock
from skewless.project import Project
from tests.worlds.edits import edit
from tests.worlds.latest import times

NOW = 1_768_478_400_000_000  # 2026-01-15 12:00 UTC
SECOND = 1_000_000
DAY = 86_400 * SECOND
ERASED = "zorgblatt-7391"  # a text that occurs nowhere else
USERS = (ERASED, "ann", "bob", "日本")
SHOPS = ("north", "south", "a|b{c}")
TABLES = ("visits", "users", "pairs", "labels")
DEFINITIONS = """\
from datetime import timedelta

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Float64, String
from feast.value_type import ValueType

user = Entity(name="user", join_keys=["user"], value_type=ValueType.STRING)
shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
visits = PushSource(
    name="visits",
    batch_source=FileSource(path="data/visits.parquet", timestamp_field="at", created_timestamp_column="created"),
    tags={
        "skewless.columns": "visit string, user string, shop string, amount float64",
        "skewless.event_id": "visit",
        "skewless.scale.amount": "1",
    },
)


def windows(name, entity):
    return StreamFeatureView(
        name=name,
        entities=[entity],
        source=visits,
        timestamp_field="at",
        aggregations=[
            Aggregation(column="amount", function="sum", time_window=timedelta(hours=6), name=f"{name}_sum"),
            Aggregation(column="amount", function="max", time_window=timedelta(days=1), name=f"{name}_max"),
            Aggregation(column="visit", function="count", time_window=timedelta(hours=1), name=f"{name}_count"),
        ],
    )


def table(name, entities, columns):
    return FeatureView(
        name=name,
        entities=entities,
        schema=[*(Field(name=each, dtype=String) for each in columns), Field(name="value", dtype=Float64)],
        source=FileSource(path=f"data/{name}.parquet", timestamp_field="at", created_timestamp_column="created"),
    )


user_now, shop_now = windows("user_now", user), windows("shop_now", shop)
users, pairs = table("users", [user], ["user"]), table("pairs", [user, shop], ["user", "shop"])
service = FeatureService(name="visits", features=[user_now, shop_now, users, pairs])
shops = FeatureService(name="shops", features=[shop_now])
"""
# Rows of shops that name users.
LAST_VISITS = """\
last_visits = table("last_visits", [shop], ["shop", "user"])
lasts = FeatureService(name="lasts", features=[last_visits])
"""
MODELS = """\
from datetime import timedelta

from skewless.contract.labels import LabelSource
from skewless.contract.spec import Gate, ModelSpec, Split

MODELS = [
    ModelSpec(
        name=name,
        service=service,
        labels=LabelSource(path="data/labels.parquet", event_time="at", known_time="created", label="late"),
        algorithm="lightgbm",
        split=Split(test=timedelta(hours=6)),
        params={"num_leaves": 3, "min_data_in_leaf": 5},
        rounds=3,
        gate=Gate(metric="auc", floor=0.0, tolerance=1.0, beat_baseline=False),
    )
    for name, service in (("both", "visits"), ("shops", "shops"))
]
"""
CONFIG = """\
project: {name}
provider: local
registry: .skewless/registry.db
offline_store:
  type: file
online_store: null
entity_key_serialization_version: 3
"""


def write_repo(repo: Path, name: str, *, seed: int = 7, settings: str = "") -> Path:
    """Write the project as of ``NOW``."""
    (repo / "data").mkdir(parents=True)
    texts = {"feature_store.yaml": CONFIG.format(name=name), "definitions.py": DEFINITIONS, "models.py": MODELS}
    texts["skewless.yaml"] = f"clock: file:{repo}/.skewless/clock\nthreads: 1\n{settings}"
    for file, text in texts.items():
        (repo / file).write_text(text)
    OffsetClock.create(repo / ".skewless/clock").set(NOW)
    chance = random.Random(seed)
    n = 400
    at = [NOW - DAY + i * DAY // n for i in range(n)]
    columns: dict[str, Any] = {
        "visit": [f"v{i}" for i in range(n)],
        "user": [chance.choice(USERS) for _ in range(n)],
        "shop": [chance.choice(SHOPS) for _ in range(n)],
        "amount": [chance.randrange(-50, 500) / 10 for _ in range(n)],
        "value": [chance.choice([None, chance.random()]) for _ in range(n)],
        "late": [float(chance.random() < 0.4) for _ in range(n)],
        "at": times(*at),
        "created": times(*(each + SECOND for each in at)),
    }
    for table, names in {
        "visits": "visit user shop amount at created",
        "users": "user value at created",
        "pairs": "user shop value at created",
        "labels": "user shop at created late",
    }.items():
        pq.write_table(pa.table({each: columns[each] for each in names.split()}), repo / f"data/{table}.parquet")
    return repo


def delete_in_sources(repo: Path, user: str = ERASED) -> None:
    """Delete the rows of a user from all files."""
    for name in TABLES:
        path = repo / f"data/{name}.parquet"
        rows = pq.read_table(path)
        pq.write_table(rows.filter(pc.not_equal(rows["user"], user)), path)


def fill(project: Project) -> None:
    """Bring the project to its first values."""
    project.apply()
    project.import_events()
    project.backfill()
    project.materialize()


def values(project: Project, *, is_short: bool = False) -> dict[str, Any]:
    """Return features of all other users and all shops, online and as of some times, bit for bit.

    Args:
        is_short: only now, and only one pair of each user but the first.
    """
    found = {}
    some = [(user, SHOPS[i % len(SHOPS)]) for i, user in enumerate(USERS[1:])]
    asked = [("visits", NOW, some[1:] if is_short else some)]
    if not is_short:
        # The views of a user or a shop alone have the same values in each pair.
        others = [(user, shop) for user in USERS[1:] for shop in SHOPS if (user, shop) not in some]
        asked += [("pairs", NOW, others), ("visits", NOW - DAY // 3, some)]
    for name, as_of_us, pairs in asked:
        for user, shop in pairs:
            for view in project.get(name, {"user": user, "shop": shop}, as_of_us=as_of_us).views:
                for side, row in view.sides.items():
                    bits = {
                        name: None if each is None else float(str(each)).hex() for name, each in row.features.items()
                    }
                    found[f"{user} {shop} {as_of_us} {view.view} {side}"] = (row.status, row.event_time, bits)
    return found


def name_users(repo: Path, last: Sequence[str | None]) -> None:
    """Add a view of the last visits of each shop."""
    edit(repo, "service = ", f"{LAST_VISITS}service = ")
    write_last_visits(repo, last)


def write_last_visits(repo: Path, last: Sequence[str | None]) -> None:
    """Write the visits of each shop: of the entity, if it is there; of another user, but in the first; and the last."""
    visits = [
        (shop, user, at)
        for number, shop in enumerate(SHOPS)
        for at, user in enumerate((ERASED if last[0] else None, "bob" if number else None, last[number]))
        if user
    ]
    shops, users, at = zip(*visits, strict=True)
    moments = times(*(NOW - DAY + each * SECOND for each in at))
    columns = {"shop": shops, "user": users, "value": list(map(float, at)), "at": moments, "created": moments}
    pq.write_table(pa.table(columns), repo / "data/last_visits.parquet")


def last_visits(project: Project) -> dict[tuple[str, str], Any]:
    """Return the online row of each shop."""
    return {
        (shop, side): (row.status, row.event_time, row.features)
        for shop in SHOPS
        for view in project.get("lasts", {"shop": shop}).views
        for side, row in view.sides.items()
    }
