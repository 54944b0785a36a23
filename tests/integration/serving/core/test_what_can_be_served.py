"""One rule for servers that start and servers that run: every model that can be served is, and the others say why."""

from __future__ import annotations

import pytest

from skewless.contract.errors import PackageError, StalePlanError, StoreError
from skewless.contract.keys import marker_key
from skewless.infra.definitions.plans.needed_views import CHAMPION, StoredTargetVersions
from skewless.serving.metrics.metrics import Metrics
from tests.integration.serving.core.conftest import SECOND
from tests.integration.serving.core.test_model_table import ONE, THREE, TWO, damage, move, opened_table
from tests.worlds.applied_plans import delete_plans
from tests.worlds.trained import MODEL, Sandbox


def refused(metrics: Metrics, thing: str) -> float:
    line = f'skewless_model_refused{{model="{thing}"}} '
    found = [text for text in metrics.render().decode().splitlines() if text.startswith(line)]
    return float(found[0].removeprefix(line)) if found else 0.0


async def test_a_model_that_cannot_be_served_does_not_keep_others_away(place: Sandbox) -> None:
    damage(place, ONE)
    metrics = Metrics()
    async with opened_table(place, metrics=metrics) as table:
        assert [model.name for model in table.all()] == [SECOND]
        assert "metrics.json" in table.problems[MODEL]
        assert table.unserved_reasons([MODEL, SECOND, "none"]) == {
            MODEL: table.problems[MODEL],
            "none": "is not served",
        }
        assert refused(metrics, MODEL) == 1.0
        with pytest.raises(StalePlanError, match="cannot be served"):
            table.get(MODEL)
        path = place.project.packages.root / MODEL / ONE / "metrics.json"
        path.write_bytes(path.read_bytes()[:-1])
        assert await table.refresh() == [MODEL]
        assert (table.get(MODEL).version, table.problems, refused(metrics, MODEL)) == (ONE, {}, 0.0)


async def test_of_a_champion_that_cannot_be_served_the_one_before_answers_after_a_restart_as_before(
    place: Sandbox,
) -> None:
    async with opened_table(place) as table:
        move(place, TWO)
        assert await table.refresh() == [MODEL]
        move(place, THREE)
        damage(place, THREE)
        assert await table.refresh() == []
        assert table.get(MODEL).version == TWO
        assert "metrics.json" in table.problems[MODEL]
    async with opened_table(place) as table:
        assert table.get(MODEL).version == TWO
        assert "metrics.json" in table.problems[MODEL]
        assert table.get(SECOND).version == ONE


async def test_a_view_that_this_redis_does_not_hold_refuses_only_the_models_that_read_it(place: Sandbox) -> None:
    plan = place.project.applied.plan
    for view in place.model.plan.views:
        place.redis.delete(marker_key(plan.project, view))
    with pytest.raises(StalePlanError, match="is missing in the online store"):
        await opened_table(place).__aenter__()
    place.project.materialize(check=False)
    async with opened_table(place) as table:
        assert len(table.all()) == 2


async def test_a_server_without_any_champion_says_so(place: Sandbox) -> None:
    place.project.state.database.execute("DELETE FROM records WHERE kind = 'alias_move'")
    assert place.project.store.aliases.get(MODEL, CHAMPION) is None
    with pytest.raises(PackageError, match="no champion"):
        await opened_table(place).__aenter__()


async def test_a_plan_that_was_applied_since_does_not_matter(place: Sandbox) -> None:
    """The views that a version pins are fed while it may answer, so it is served whatever plan is in force."""
    delete_plans(place.project.state)
    async with opened_table(place) as table:
        assert [model.name for model in table.all()] == [MODEL, SECOND]


async def test_requested_versions_stay_loaded_while_the_database_is_down(
    place: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: StoredTargetVersions) -> None:
        raise StoreError("database", "is down", fix="start it")

    async with opened_table(place) as table:
        await table.serve_version(MODEL, "2")
        monkeypatch.setattr(StoredTargetVersions, "read", fail)
        for _ in range(2):
            assert await table.refresh() == []
            assert "database: is down" in table.problems["target versions"]
            assert table.open_versions(MODEL) == [ONE, TWO]
        monkeypatch.undo()
        await table.refresh()
        assert table.problems == {}
