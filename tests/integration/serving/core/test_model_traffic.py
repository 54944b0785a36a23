"""A policy comes into force when all that it needs is open, and ends when its champion is champion no more."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from skewless.contract.clock import ManualClock
from skewless.contract.errors import ConflictError, StoreError
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.definitions.plans.needed_views import CHAMPION
from skewless.infra.models.packages.store import Traffic
from skewless.infra.models.rollout.counts import read_counts
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.sqlite_database import SqliteDatabase
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.models.traffic_policies import RolloutCountsWriter
from tests.integration.serving.core.test_model_table import ONE, THREE, TWO, damage, history, move, opened_table
from tests.worlds.trained import MODEL, Sandbox


def put(place: Sandbox, **fields: Any) -> TrafficPolicy:  # noqa: ANN401 - of a policy
    """Put a policy in force, as a rollout would."""
    traffic = place.project.store.traffic
    usual: dict[str, Any] = {"number": 0, "phase": "canary", "champion": ONE, "challenger": TWO, "share": 0.5}
    policy = TrafficPolicy(**usual | fields)
    return traffic.replace(MODEL, policy, expect=traffic.number(MODEL))


def in_force(table: ModelTable) -> TrafficPolicy | None:
    routing = table.routing(MODEL)
    return None if routing is None else routing.policy


async def test_a_policy_comes_into_force_with_all_that_it_needs_open(place: Sandbox) -> None:
    metrics = Metrics()
    async with opened_table(place, keep=1, metrics=metrics) as table:
        assert in_force(table) is None
        first = put(place, shadows=(THREE,))
        assert in_force(table) is None
        assert await table.refresh() == []
        assert (in_force(table), table.open_versions(MODEL)) == (first, [ONE, TWO, THREE])
        assert table.get(MODEL).version == ONE
        routing = table.routing(MODEL)
        await table.refresh()
        assert table.routing(MODEL) is routing
        second = put(place, share=0.9)
        await table.refresh()
        assert (in_force(table), table.open_versions(MODEL)) == (second, [ONE, TWO])
        lines = metrics.render().decode().splitlines()
        assert f'skewless_traffic_policy{{model="{MODEL}"}} 2.0' in lines
        assert f'skewless_traffic_share{{model="{MODEL}"}} 0.9' in lines
    async with opened_table(place, keep=1, metrics=metrics) as table:
        assert (in_force(table), table.open_versions(MODEL)) == (place.project.store.traffic.get(MODEL), [ONE, TWO])


async def test_the_phase_champion_routes_nothing(place: Sandbox) -> None:
    async with opened_table(place, keep=1) as table:
        put(place)
        await table.refresh()
        put(place, phase="champion", challenger=None, share=0.0)
        await table.refresh()
        assert (in_force(table), table.open_versions(MODEL), table.problems) == (None, [ONE], {})
        put(place, phase="champion", challenger=None, share=0.0, shadows=(THREE,))
        await table.refresh()
        assert table.open_versions(MODEL) == [ONE, THREE]


async def test_who_moves_the_alias_ends_the_policy_of_another_champion(place: Sandbox) -> None:
    async with opened_table(place, keep=1) as table:
        put(place)
        await table.refresh()
        move(place, TWO)  # killed before it wrote the last policy
        assert await table.refresh() == [MODEL]
        assert (in_force(table), table.get(MODEL).version) == (None, TWO)
        put(place, phase="champion", champion=TWO, challenger=None, share=0.0)
        await table.refresh()
        assert (in_force(table), table.get(MODEL).version, table.problems) == (None, TWO, {})
        later = put(place, champion=TWO, challenger=THREE)
        await table.refresh()
        assert in_force(table) == later


async def test_a_policy_for_who_is_no_champion_yet_waits_for_the_alias(place: Sandbox) -> None:
    async with opened_table(place, keep=1) as table:
        policy = put(place, champion=TWO, challenger=THREE)
        await table.refresh()
        assert in_force(table) is None
        move(place, TWO)
        await table.refresh()
        assert in_force(table) == policy


async def test_a_version_that_cannot_be_opened_leaves_the_old_policy_in_force(place: Sandbox) -> None:
    metrics = Metrics()
    async with opened_table(place, keep=1, metrics=metrics) as table:
        first = put(place)
        await table.refresh()
        damage(place, THREE)
        put(place, challenger=THREE)
        for _ in range(2):
            await table.refresh()
            assert in_force(table) == first
            assert "metrics.json" in table.problems[f"{MODEL} traffic"]
            shown = f'skewless_traffic_refused{{model="{MODEL}"}} 1.0'
            assert shown in metrics.render().decode().splitlines()
        third = put(place, share=0.1)
        await table.refresh()
        assert (in_force(table), table.problems) == (third, {})
        assert f'skewless_traffic_refused{{model="{MODEL}"}} 0.0' in metrics.render().decode().splitlines()


async def test_a_server_starts_on_its_champion_if_the_policy_cannot_be_kept(place: Sandbox) -> None:
    put(place)
    damage(place, TWO)
    async with opened_table(place, keep=1) as table:
        assert (in_force(table), table.get(MODEL).version) == (None, ONE)
        assert "metrics.json" in table.problems[f"{MODEL} traffic"]


async def test_an_unloaded_model_has_no_policy_until_it_is_loaded(place: Sandbox) -> None:
    async with opened_table(place, keep=1) as table:
        policy = put(place)
        await table.refresh()
        await table.unload_model(MODEL)
        await table.refresh()
        assert in_force(table) is None
        await table.serve_version(MODEL)
        await table.refresh()
        assert in_force(table) == policy


async def test_a_rollback_ends_a_rollout_and_the_next_one_moves_the_alias(place: Sandbox) -> None:
    async with opened_table(place, keep=1) as table:
        move(place, THREE)
        put(place, champion=THREE, shadows=(ONE,))
        await table.refresh()
        model = await table.roll_back(MODEL, reason="by hand", now_us=9)
        assert (model.version, in_force(table)) == (THREE, None)
        last = place.project.store.traffic.history(MODEL)[-1]
        assert (last.phase, last.champion, last.challenger, last.share) == ("champion", THREE, None, 0.0)
        assert (last.shadows, last.reason, last.since_us, last.moves) == ((), "by hand", 9, 2)
        assert history(place) == [ONE, THREE]
        assert (await table.roll_back(MODEL, reason="again", now_us=10)).version == ONE
        assert history(place) == [ONE, THREE, ONE]


async def test_a_rollback_right_after_a_promotion_cannot_wake_its_rollout_again(place: Sandbox) -> None:
    async with opened_table(place, keep=1) as table:
        put(place)
        move(place, TWO)  # killed before it wrote the last policy
        await table.refresh()
        assert (await table.roll_back(MODEL, reason="by hand", now_us=9)).version == ONE
        await table.refresh()
        assert (in_force(table), table.get(MODEL).version) == (None, ONE)


async def test_a_rollback_while_another_policy_is_written_is_told(
    place: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Traffic.replace

    def raced(self: Traffic, model: str, policy: TrafficPolicy, *, expect: int | None) -> TrafficPolicy:
        monkeypatch.setattr(Traffic, "replace", real)
        put(place, share=0.9)
        return real(self, model, policy, expect=expect)

    async with opened_table(place, keep=1) as table:
        put(place)
        await table.refresh()
        monkeypatch.setattr(Traffic, "replace", raced)
        with pytest.raises(ConflictError, match="under policy 2, not 1"):
            await table.roll_back(MODEL, reason="by hand", now_us=9)
        assert place.project.store.aliases.get(MODEL, CHAMPION) == ONE


async def test_counts_are_there_for_others_as_long_as_the_policy_lasts(place: Sandbox) -> None:
    documents = Documents(place.project.state.database, "rollout_counts")
    async with opened_table(place, keep=1) as table:
        writer = RolloutCountsWriter(place.project.state, table.policies, ManualClock(7))
        await writer.start()
        await writer.write()
        assert documents.list_all() == {}
        policy = put(place)
        await table.refresh()
        await writer.write()
        found = read_counts(place.project.state, MODEL, policy.number)
        assert {version: (one.requests, one.at_us) for version, one in found.items()} == dict.fromkeys(
            (ONE, TWO), (0, 7)
        )
        await writer.close()
        again = read_counts(place.project.state, MODEL, policy.number)
        assert {version: one.as_dict() for version, one in again.items()} == {
            version: one.as_dict() for version, one in found.items()
        }
        put(place, phase="champion", challenger=None, share=0.0)
        await table.refresh()
        await writer.write()
        assert documents.list_all() == {}


async def test_while_the_database_is_away_the_last_aliases_and_policy_apply(
    place: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreError("database", "is unavailable", fix="start it")

    async with opened_table(place, keep=1) as table:
        policy = put(place)
        await table.refresh()
        writer = RolloutCountsWriter(place.project.state, table.policies, ManualClock(7))
        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(SqliteDatabase, "execute", away)
            await writer.start()
            for _ in range(3):
                assert await table.refresh() == []
                await writer.write()
            with pytest.raises(StoreError, match="is unavailable"):
                await table.roll_back(MODEL, reason="by hand", now_us=9)
            await table.refresh()
        assert (in_force(table), table.get(MODEL).version) == (policy, ONE)
        assert "is unavailable" in table.problems["aliases and traffic"]
        assert [line.get("model") for line in logs].count("aliases and traffic") == 1
        move(place, TWO)
        assert await table.refresh() == [MODEL]
        assert (in_force(table), table.get(MODEL).version, table.problems) == (None, TWO, {})
        await writer.close()
