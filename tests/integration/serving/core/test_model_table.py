"""Versions that are swapped, kept, pinned, unloaded, rolled back and refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from skewless.contract.errors import ConflictError, PackageError, RequestError, SkewlessError
from skewless.infra.definitions.plans.needed_views import CHAMPION
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor
from tests.integration.serving.core.conftest import SECOND
from tests.worlds.trained import MODEL, Sandbox, ask

ONE, TWO, THREE = "000001", "000002", "000003"


@asynccontextmanager
async def opened_table(place: Sandbox, *, keep: int = 2, metrics: Metrics | None = None) -> AsyncIterator[ModelTable]:
    """Open a table that was just loaded, as after a restart."""
    reader = RedisReader(place.project.redis_url)
    state, store = ProjectState(place.state), place.project.store
    table = ModelTable(repo=place.repo, state=state, store=store, online=reader, keep=keep, metrics=metrics)
    try:
        await table.load()
        yield table
    finally:
        await reader.close()


def move(place: Sandbox, to: str, name: str = MODEL) -> None:
    """Make a version champion, as training would."""
    aliases = place.project.store.aliases
    expect = aliases.get(name, CHAMPION)
    aliases.move(name, CHAMPION, expect=expect, to=to, reason="test", now_us=place.now_us())


def targets(place: Sandbox) -> Documents:
    return Documents(place.project.state.database, "target_versions")


def history(place: Sandbox) -> list[str]:
    return [item.to for item in place.project.store.aliases.history(MODEL, CHAMPION)]


def damage(place: Sandbox, version: str) -> None:
    path = place.project.packages.root / MODEL / version / "metrics.json"
    path.write_bytes(path.read_bytes() + b" ")


async def test_champions_are_served_and_named(place: Sandbox) -> None:
    async with opened_table(place) as table:
        assert sorted((model.name, model.version) for model in table.all()) == [(MODEL, ONE), (SECOND, ONE)]
        assert list(table.known_versions()) == [MODEL, SECOND]
        assert (table.known_versions()[MODEL], table.open_versions(MODEL)) == ([ONE, TWO, THREE], [ONE])
        for version in (None, "1", "01", ONE):
            assert table.get(MODEL, version).version == ONE
        for name, version in ((None, None), ("none", None), (MODEL, "2"), (MODEL, "x"), ("", None), (None, "1")):
            with pytest.raises(RequestError, match="model"):
                table.get(name, version)
        assert table.problems == {}


async def test_the_only_model_needs_no_name(place: Sandbox) -> None:
    async with opened_table(place) as table:
        await table.unload_model(SECOND)
        assert (table.get(None).name, table.get(None, "1").version) == (MODEL, ONE)
        await table.unload_model(MODEL)
        with pytest.raises(RequestError, match="model"):
            table.get(None)


@pytest.mark.parametrize(("keep", "left"), [(1, [THREE]), (2, [TWO, THREE]), (3, [ONE, TWO, THREE])])
async def test_so_many_champions_stay_open(place: Sandbox, keep: int, left: list[str]) -> None:
    async with opened_table(place, keep=keep) as table:
        for version in (TWO, THREE):
            move(place, version)
            assert await table.refresh() == [MODEL]
            assert table.get(MODEL).version == version
            assert await table.refresh() == []
        assert table.open_versions(MODEL) == left
        for version in {ONE, TWO, THREE} - set(left):
            with pytest.raises(RequestError, match="no such loaded version"):
                table.get(MODEL, version)


async def test_a_champion_that_comes_back_is_not_opened_again(place: Sandbox) -> None:
    async with opened_table(place) as table:
        first = table.get(MODEL)
        for version in (TWO, ONE, TWO, ONE):
            move(place, version)
            assert await table.refresh() == [MODEL]
        assert table.get(MODEL) is first
        assert table.open_versions(MODEL) == [ONE, TWO]


async def test_a_version_that_somebody_wants_is_there_after_a_restart(place: Sandbox) -> None:
    async with opened_table(place, keep=1) as table:
        assert (await table.serve_version(MODEL, "3")).version == THREE
        assert (await table.serve_version(MODEL, "1")).version == ONE
        assert table.get(MODEL).version == ONE
    async with opened_table(place, keep=1) as table:
        assert (table.get(MODEL).version, table.get(MODEL, "3").version) == (ONE, THREE)
        move(place, TWO)
        await table.refresh()
        move(place, THREE)
        await table.refresh()
        move(place, TWO)
        await table.refresh()
        # 1 was wanted too, while it was champion.
        assert table.open_versions(MODEL) == [ONE, TWO, THREE]


async def test_a_model_that_nobody_wants_stays_away_until_somebody_does(place: Sandbox) -> None:
    async with opened_table(place) as table:
        await table.serve_version(SECOND, "1")
        await table.unload_model(SECOND)
    async with opened_table(place) as table:
        for _ in range(2):
            assert [model.name for model in table.all()] == [MODEL]
            assert (table.open_versions(SECOND), list(table.known_versions())) == ([], [MODEL, SECOND])
            await table.refresh()
        with pytest.raises(RequestError):
            await table.unload_model(SECOND)
    async with opened_table(place) as table:
        await table.serve_version(SECOND)
        assert table.get(SECOND).version == ONE
    async with opened_table(place) as table:
        assert table.get(SECOND).version == ONE


async def test_another_worker_takes_up_what_was_wanted_of_its_sibling(place: Sandbox) -> None:
    async with opened_table(place) as table:
        reader = RedisReader(place.project.redis_url)
        sibling = ModelTable(repo=place.repo, state=place.project.state, store=place.project.store, online=reader)
        await sibling.load()
        await sibling.serve_version(MODEL, "2")
        await sibling.unload_model(SECOND)
        assert await table.refresh() == []
        assert (table.open_versions(MODEL), [model.name for model in table.all()]) == ([ONE, TWO], [MODEL])
        await sibling.serve_version(SECOND)
        assert await table.refresh() == [SECOND]
        await reader.close()


async def test_an_unloaded_model_is_served_by_its_champion_when_a_version_is_wanted(place: Sandbox) -> None:
    async with opened_table(place) as table:
        await table.unload_model(MODEL)
        assert (await table.serve_version(MODEL, "2")).version == TWO
        assert (table.get(MODEL).version, table.open_versions(MODEL)) == (ONE, [ONE, TWO])


@pytest.mark.parametrize(("name", "version"), [("none", None), (MODEL, "7"), (MODEL, "x"), ("../x", None), ("", "1")])
async def test_what_does_not_exist_cannot_be_wanted(place: Sandbox, name: str, version: str | None) -> None:
    async with opened_table(place) as table:
        with pytest.raises(RequestError, match="model"):
            await table.serve_version(name, version)
        assert targets(place).get("project") is None


async def test_a_rollback_goes_back_and_another_goes_forth_again(place: Sandbox) -> None:
    async with opened_table(place) as table:
        with pytest.raises(ConflictError, match="has no earlier champion"):
            await table.roll_back(MODEL, reason="x", now_us=1)
        move(place, TWO)
        move(place, THREE)
        await table.refresh()
        for version in (TWO, THREE, TWO):
            model = await table.roll_back(MODEL, reason="x", now_us=place.now_us())
            assert (model.version, table.get(MODEL).version) == (version, version)
            assert await table.refresh() == []
        with pytest.raises(RequestError):
            await table.roll_back("none", reason="x", now_us=1)
    assert history(place) == [ONE, TWO, THREE, TWO, THREE, TWO]


async def test_a_rollback_to_what_cannot_be_opened_changes_nothing(place: Sandbox) -> None:
    move(place, TWO)
    async with opened_table(place) as table:
        damage(place, ONE)
        with pytest.raises(PackageError, match=r"metrics\.json"):
            await table.roll_back(MODEL, reason="x", now_us=1)
        assert table.get(MODEL).version == TWO
    assert history(place) == [ONE, TWO]


async def test_a_broken_version_is_refused_and_the_old_one_stays(place: Sandbox) -> None:
    async with opened_table(place) as table:
        damage(place, TWO)
        move(place, TWO)
        for _ in range(3):
            assert await table.refresh() == []
            assert table.get(MODEL).version == ONE
            assert "metrics.json" in table.problems[MODEL]
        with pytest.raises(PackageError, match=r"metrics\.json"):
            await table.serve_version(MODEL, "2")
        assert targets(place).get("project") is None
        move(place, THREE)
        assert await table.refresh() == [MODEL]
        assert (table.get(MODEL).version, table.problems) == (THREE, {})


async def test_a_pinned_version_that_breaks_does_not_keep_the_server_from_starting(place: Sandbox) -> None:
    async with opened_table(place) as table:
        await table.serve_version(MODEL, "2")
        damage(place, TWO)
    async with opened_table(place) as table:
        assert table.open_versions(MODEL) == [ONE]
        assert "metrics.json" in table.problems[f"{MODEL} {TWO}"]


async def test_damaged_target_versions_are_told_and_what_was_wanted_stays(place: Sandbox) -> None:
    async with opened_table(place) as table:
        await table.serve_version(MODEL, "2")
        whole = targets(place).get("project")
        targets(place).put("project", {})
        move(place, THREE)
        assert await table.refresh() == [MODEL]
        assert "are corrupt" in table.problems["target versions"]
        assert table.open_versions(MODEL) == [ONE, TWO, THREE]
        targets(place).put("project", whole)
        await table.refresh()
        assert table.problems == {}


async def test_a_server_does_not_start_on_damaged_target_versions(place: Sandbox) -> None:
    targets(place).put("project", {})
    with pytest.raises(PackageError, match="target versions"):
        await opened_table(place).__aenter__()


async def test_the_series_of_a_dropped_version_go_with_it(place: Sandbox) -> None:
    metrics = Metrics()
    async with opened_table(place, keep=1, metrics=metrics) as table:
        for version in (TWO, THREE):
            move(place, version)
            await table.refresh()
        await table.unload_model(SECOND)
    shown = [line for line in metrics.render().decode().splitlines() if line.startswith("skewless_certified_rows{")]
    assert len(shown) == 1
    assert f'version="{THREE}"' in shown[0]


async def test_changes_at_the_same_time_come_one_after_the_other(place: Sandbox) -> None:
    async with opened_table(place) as table:
        for version in (TWO, THREE):
            move(place, version)
            found = await asyncio.gather(
                table.refresh(),
                table.serve_version(MODEL, "1"),
                table.serve_version(MODEL, "2"),
                table.refresh(),
                table.serve_version(SECOND),
            )
            assert sorted([*found[0], *found[3]]) in ([MODEL], [])
        assert table.get(MODEL).version == THREE
        assert table.open_versions(MODEL) == [ONE, TWO, THREE]


async def test_questions_under_way_are_answered_by_the_version_they_were_asked_of(place: Sandbox) -> None:
    async with opened_table(place, keep=1) as table:
        reader = RedisReader(place.project.redis_url)
        predictor = Predictor(online=reader, clock=place.project.clock, log=None)
        waiting = []
        for version in (ONE, TWO, THREE):
            if version != ONE:
                move(place, version)
            await table.refresh()
            waiting.append(asyncio.ensure_future(predictor.predict(table.get(MODEL), ask(3))))
        await table.unload_model(MODEL)
        answers = await asyncio.gather(*waiting)
        assert [answer.model.version for answer in answers] == [ONE, TWO, THREE]
        for answer in answers:
            model = place.load(answer.model.version)
            np.testing.assert_array_equal(answer.scores, model.runtime.score(answer.matrix))
        assert len({answer.scores.tobytes() for answer in answers}) == 3
        await predictor.close()
        await reader.close()


async def test_a_view_that_this_store_does_not_hold_is_no_model(place: Sandbox) -> None:
    for key in place.redis.scan_iter():
        place.redis.delete(key)
    with pytest.raises(SkewlessError, match="needs view 'card_days', which is missing in the online store"):
        await opened_table(place).__aenter__()
