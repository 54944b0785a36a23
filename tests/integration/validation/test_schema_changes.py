"""A column comes, goes, changes its type or its name: the plan says so, old rows are read, models refused by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from infra.online.redis_store import RedisReader
from serving.models.table import ModelTable
from skewless.errors import StalePlanError
from tests.projects import Place, ask

COUNTRY = '        Field(name="country", dtype=String),\n'
COUNT = '        Field(name="payments_7d", dtype=Int64),\n'


@dataclass(frozen=True, kw_only=True)
class SchemaChange:
    """An edit of the definitions with its edit of the source; ``names``: the features that differ."""

    name: str
    old: str
    new: str
    source: Callable[[pa.Table], pa.Table]
    names: str


def _replaced(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


CHANGES = [
    SchemaChange(
        name="added",
        old=COUNTRY,
        new=COUNTRY + '        Field(name="spend_7d", dtype=Float64),\n',
        source=lambda t: t.append_column("spend_7d", pc.multiply(pc.cast(t["payments_7d"], pa.float64()), 2.5)),
        names="spend_7d",
    ),
    SchemaChange(name="dropped", old=COUNTRY, new="", source=lambda t: t.drop_columns(["country"]), names="country"),
    SchemaChange(
        name="retyped",
        old=COUNT,
        new=COUNT.replace("Int64", "Float64"),
        source=lambda t: _replaced(t, "payments_7d", pc.cast(t["payments_7d"], pa.float64())),
        names="payments_7d",
    ),
    SchemaChange(
        name="renamed",
        old=COUNTRY,
        new=COUNTRY.replace("country", "land"),
        source=lambda t: t.rename_columns([{"country": "land"}.get(name, name) for name in t.column_names]),
        names="country, land",
    ),
]


def _change(place: Place, change: SchemaChange) -> None:
    definitions, data = place.repo / "definitions.py", place.repo / "data/card_days.parquet"
    text = definitions.read_text()
    assert change.old in text
    definitions.write_text(text.replace(change.old, change.new, 1))
    pq.write_table(change.source(pq.read_table(data)), data.with_suffix(".new"))
    data.with_suffix(".new").replace(data)


async def _load(place: Place) -> None:
    reader = RedisReader(place.project.redis_url)
    try:
        await ModelTable(repo=place.repo, state=place.state, online=reader).load()
    finally:
        await reader.close()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_changed_column(place: Place, change: SchemaChange) -> None:
    before, old = place.predict(ask(30)), place.view("card_days")
    _change(place, change)

    report = place.project.plan()
    assert ("change", "view", "card_days") in {(item.action, item.kind, item.name) for item in report.changes}
    (breakage,) = report.breakages
    assert (breakage.model, breakage.version) == ("fraud", "000001")
    assert "'card_days'" in breakage.reason
    # Planned only: the model in force goes on.
    np.testing.assert_array_equal(place.predict(ask(30)).scores, before.scores)
    asyncio.run(_load(place))

    place.project.apply()
    (new, _) = place.project.materialize(check=False)
    assert place.view("card_days").hash != old.hash
    assert (new.view, new.accepted > 0, new.written > 0) == ("card_days", True, True)
    # The rows of the old plan are where they were, for whoever still reads by it ...
    np.testing.assert_array_equal(place.predict(ask(30)).matrix, before.matrix)
    assert not place.predict(ask(30)).degraded
    # ... but what nobody keeps fresh is not served anew, and the refusal names the columns.
    with pytest.raises(StalePlanError, match=rf"model 'fraud' 000001: .*'card_days' differs in {change.names}"):
        asyncio.run(_load(place))
    assert not place.project.replay().findings.predictions

    place.train()
    asyncio.run(_load(place))
    after = place.predict(ask(30), model=place.load("000002"))
    views = [view.name for view in after.model.plan.all_views]
    assert after.scored.found[:, views.index("card_days")].all()
    assert after.model.plan.view("card_days").features == place.view("card_days").features
