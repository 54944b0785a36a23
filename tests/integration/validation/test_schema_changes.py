"""A column comes, goes, changes its type or its name: the plan says so, and old models go on with old rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from skewless.contract.keys import marker_key
from skewless.contract.plan import View
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.redis_store import BlockingReader, RedisReader
from skewless.serving.models.table import ModelTable
from tests.worlds.trained import Sandbox, ask

COUNTRY = '        Field(name="country", dtype=String),\n'
COUNT = '        Field(name="payments_7d", dtype=Int64),\n'


@dataclass(frozen=True, kw_only=True)
class SchemaChange:
    """An edit of the definitions with its edit of the source; ``still_fed``: the old version finds its columns."""

    name: str
    old: str
    new: str
    source: Callable[[pa.Table], pa.Table]
    still_fed: bool = False


def _replaced(table: pa.Table, name: str, column: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


CHANGES = [
    SchemaChange(
        name="added",
        old=COUNTRY,
        new=COUNTRY + '        Field(name="spend_7d", dtype=Float64),\n',
        source=lambda t: t.append_column("spend_7d", pc.multiply(pc.cast(t["payments_7d"], pa.float64()), 2.5)),
        still_fed=True,
    ),
    SchemaChange(name="dropped", old=COUNTRY, new="", source=lambda t: t.drop_columns(["country"])),
    SchemaChange(
        name="retyped",
        old=COUNT,
        new=COUNT.replace("Int64", "Float64"),
        source=lambda t: _replaced(t, "payments_7d", pc.cast(t["payments_7d"], pa.float64())),
        still_fed=True,  # whole numbers still fit
    ),
    SchemaChange(
        name="renamed",
        old=COUNTRY,
        new=COUNTRY.replace("country", "land"),
        source=lambda t: t.rename_columns([{"country": "land"}.get(name, name) for name in t.column_names]),
    ),
]


def _change(place: Sandbox, change: SchemaChange) -> None:
    definitions, data = place.repo / "definitions.py", place.repo / "data/card_days.parquet"
    text = definitions.read_text()
    assert change.old in text
    definitions.write_text(text.replace(change.old, change.new, 1))
    pq.write_table(change.source(pq.read_table(data)), data.with_suffix(".new"))
    data.with_suffix(".new").replace(data)


async def _load(place: Sandbox) -> dict[str, str]:
    """Let a server start; return what it does not serve, and why."""
    reader = RedisReader(place.project.redis_url)
    try:
        table = ModelTable(repo=place.repo, state=ProjectState(place.state), store=place.project.store, online=reader)
        await table.load()
        return table.problems
    finally:
        await reader.close()


def _watermark(place: Sandbox, view: View) -> int:
    reader = BlockingReader(place.project.redis_url)
    try:
        (mark,) = reader.get_with_markers([], [marker_key(place.project.applied.plan.project, view)])[1]
    finally:
        reader.close()
    assert mark is not None
    return mark.watermark_us


# A column that is renamed goes and comes at once.
OFTEN = {"renamed", "retyped"}


@pytest.mark.parametrize(
    "change",
    [pytest.param(each, id=each.name, marks=[] if each.name in OFTEN else pytest.mark.soak) for each in CHANGES],
)
def test_a_changed_column(place: Sandbox, change: SchemaChange) -> None:
    before, old = place.predict(ask(30)), place.view("card_days")
    _change(place, change)

    report = place.project.plan()
    assert ("change", "view", "card_days") in {(item.action, item.kind, item.name) for item in report.changes}
    assert report.breakages == []
    (served,) = report.serves
    assert (served.model, served.version) == ("fraud", "000001")
    assert f"card_days@{old.hash[:8]}" in served.views
    (training,) = report.trains
    assert "view card_days" in training.reasons
    # Planned only: the model in force goes on.
    np.testing.assert_array_equal(place.predict(ask(30)).scores, before.scores)
    assert not asyncio.run(_load(place))

    place.project.apply()
    place.wait(1)
    began = place.now_us()
    new, _, again = place.project.materialize(check=False)
    assert (new.view, new.accepted > 0, new.written > 0) == ("card_days", True, True)
    assert (again.view, again.accepted) == (f"card_days@{old.hash[:8]}", 0)
    # A version that only a model reads, and whose column is gone, is reported and stops nothing.
    assert (again.problem is None) == change.still_fed
    assert change.still_fed or "has no such column (got 'country')" in str(again.problem)
    assert place.view("card_days").hash != old.hash
    assert _watermark(place, place.view("card_days")) >= began
    # The rows of the old plan are where they were, for whoever still reads by it, and say how old they are.
    assert (_watermark(place, old) >= began) == change.still_fed
    np.testing.assert_array_equal(place.predict(ask(30)).matrix, before.matrix)
    assert not place.predict(ask(30)).degraded
    assert not asyncio.run(_load(place))
    assert not place.project.replay().findings.predictions

    place.train()
    assert not asyncio.run(_load(place))
    after = place.predict(ask(30), model=place.load("000002"))
    views = [view.name for view in after.model.plan.all_views]
    assert after.scored.row_mask[:, views.index("card_days")].all()
    assert after.model.plan.view("card_days").features == place.view("card_days").features
