"""Rows go to the version that their entity belongs to, and shadows see what was answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from skewless.contract.errors import DeadlineError, PackageError, SkewlessError, StoreError
from skewless.contract.traffic import TrafficPolicy, entity_position
from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.prediction.input_texts import input_texts
from skewless.serving.prediction.routing import MergedSlices, Routing
from skewless.serving.prediction.scored_batch import ScoredSlice
from tests.integration.serving.core.desk import Desk, at_a_desk, contents, good, strict
from tests.worlds.trained import Row, Sandbox, ask
from tests.worlds.waiting import PATIENCE_S

ONE, TWO, THREE = "000001", "000002", "000003"
ReplyCallback = ScoredSlice | MergedSlices | SkewlessError
CANARY = TrafficPolicy(number=4, phase="canary", champion=ONE, challenger=TWO, share=0.4, sticky=("card_id",), salt="s")
SHADOW = TrafficPolicy(number=4, phase="shadow", champion=ONE, challenger=TWO, shadows=(THREE, TWO))


@pytest.fixture(scope="module")
def models(shared: Sandbox) -> dict[str, ServedModel]:
    return {version: shared.load(version) for version in (ONE, TWO, THREE)}


def routed(desk: Desk, policy: TrafficPolicy, models: Mapping[str, ServedModel]) -> Routing:
    return Routing(policy, models, desk.metrics)


async def told(desk: Desk, rows: Sequence[Row], routing: Routing, **options: Any) -> ReplyCallback:  # noqa: ANN401
    waiting: asyncio.Future[ReplyCallback] = asyncio.get_running_loop().create_future()
    champion = routing.split(desk.request(ask(1)))[0].request.model
    request = desk.request(rows, champion, **options)._replace(routing=routing)
    desk.predictor.submit(request, waiting.set_result)
    return await waiting


def served_versions(mixed: MergedSlices) -> list[str]:
    by_row = {row: part.model.version for part, rows in zip(mixed.parts, mixed.rows, strict=True) for row in rows}
    return [by_row[row] for row in range(mixed.n)]


def expected_versions(rows: Sequence[Row], policy: TrafficPolicy) -> list[str]:
    return [TWO if entity_position(policy.salt, [row["card_id"]]) < policy.share else ONE for row in rows]


async def test_every_row_is_answered_by_the_version_of_its_entity(
    shared: Sandbox, models: dict[str, ServedModel]
) -> None:
    async with at_a_desk(shared) as desk:
        rows = ask(60)
        mixed = await told(desk, rows, routed(desk, CANARY, models))
        assert isinstance(mixed, MergedSlices)
        versions = expected_versions(rows, CANARY)
        assert (served_versions(mixed), set(versions)) == (versions, {ONE, TWO})
        assert len({part.t for part in mixed.parts}) == 1
        for part, places in zip(mixed.parts, mixed.rows, strict=True):
            alone = good(await desk.answer(desk.request([rows[i] for i in places], part.model)))
            assert contents(part) == contents(alone)
        assert sorted(i for places in mixed.rows for i in places) == list(range(60))


async def test_an_entity_stays_with_its_version_whatever_it_is_asked_with(
    shared: Sandbox, models: dict[str, ServedModel]
) -> None:
    async with at_a_desk(shared) as desk:
        routing, rows = routed(desk, CANARY, models), ask(30)
        for row, version in zip(rows, expected_versions(rows, CANARY), strict=True):
            answer = await told(desk, [row], routing)
            assert isinstance(answer, ScoredSlice)
            again = await told(desk, [{**row, "amount": 1.0, "shop_id": "other"}] * 3, routing)
            assert isinstance(again, ScoredSlice)
            assert {answer.model.version, again.model.version} == {version}


async def test_parts_of_a_request_are_read_once_and_evaluated_at_one_time(
    shared: Sandbox, models: dict[str, ServedModel]
) -> None:
    async with at_a_desk(shared) as desk:
        desk.store.asked.clear()
        mixed = await told(desk, ask(60), routed(desk, CANARY, models))
        assert isinstance(mixed, MergedSlices)
        (keys,) = desk.store.asked
        assert len(keys) == len(set(keys))
        (alone,) = [await desk.answer(desk.request(ask(60), models[ONE]))]
        assert set(keys) == set(desk.store.asked[-1])
        assert good(alone).t == mixed.t


async def test_the_log_says_role_and_policy(shared: Sandbox, models: dict[str, ServedModel]) -> None:
    async with at_a_desk(shared) as desk:
        rows = ask(40)
        await told(desk, rows, routed(desk, CANARY, models))
        await desk.answer(desk.request(ask(1), models[TWO]))
        await desk.predictor.close()
        routed_record, other = desk.log.offered
        found = [(origin.version, origin.role, origin.policy) for origin, _ in (*routed_record.origins, *other.origins)]
        assert sorted(found[:2]) == [(ONE, "champion", 4), (TWO, "challenger", 4)]
        assert found[2:] == [(TWO, "champion", None)]
        logged = [origin.version for origin, n in routed_record.origins for _ in range(n)]
        expected = dict(zip(input_texts(rows), expected_versions(rows, CANARY), strict=True))
        assert logged == [expected[bytes(text)] for text in routed_record.inputs]


async def test_vitals_count_each_arm_alone(shared: Sandbox, models: dict[str, ServedModel]) -> None:
    async with at_a_desk(shared) as desk:
        routing, rows = routed(desk, CANARY, models), ask(60)
        mixed = await told(desk, rows, routing)
        assert isinstance(mixed, MergedSlices)
        await desk.answer(desk.request(rows, models[ONE]))  # not routed: does not count
        policy, found = routing.read_counts(77)
        assert (policy, set(found)) == (4, {ONE, TWO})
        for part in mixed.parts:
            item = found[part.model.version]
            assert (item.requests, item.failed, item.rows, item.at_us) == (1, 0, part.n, 77)
            assert (item.missing, item.values) == (int(np.isnan(part.matrix).sum()), part.matrix.size)
            assert (item.latency.n, item.scores.n) == (1, part.n)
            middle = item.scores.quantile(0.5)
            assert middle == min(edge for edge in item.scores.edges if edge >= np.sort(part.scores)[(part.n - 1) // 2])
            assert [sum(counts.values()) for counts in item.by_status.values()] == [part.n] * part.status.shape[1]


async def test_what_the_server_fails_on_counts_against_the_arm(shared: Sandbox, models: dict[str, ServedModel]) -> None:
    async with at_a_desk(shared) as desk:
        refusing = {**models, TWO: strict(models[TWO])}
        routing, rows = routed(desk, CANARY, refusing), ask(60)
        desk.store.away = True
        assert isinstance(await told(desk, rows, routing), StoreError)
        found = routing.read_counts(1).versions
        assert [(found[version].requests, found[version].failed) for version in (ONE, TWO)] == [(1, 0), (1, 1)]
        desk.store.away = False
        desk.store.open.clear()
        late = await told(desk, rows, routing, deadline=desk.loop_s + 0.02)
        assert isinstance(late, DeadlineError)
        desk.store.open.set()
        found = routing.read_counts(1).versions
        assert [(found[version].requests, found[version].failed) for version in (ONE, TWO)] == [(2, 0), (2, 2)]
        assert desk.metrics.arm_failures(refusing[TWO].name, TWO, "challenger").value == 2


async def shadows_done(desk: Desk, n: int) -> None:
    """Wait until so many records are logged."""
    async with asyncio.timeout(PATIENCE_S):
        while len(desk.log.offered) < n:  # noqa: ASYNC110 - a fake has no event
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("same", [True, False])
async def test_shadows_score_what_was_answered_after_the_reply(
    shared: Sandbox,
    models: dict[str, ServedModel],
    same: bool,  # noqa: FBT001 - a parameter
) -> None:
    async with at_a_desk(shared) as desk:
        shown = models if same else {**models, TWO: other_plan(models[TWO])}
        routing, rows = routed(desk, SHADOW, shown), ask(30)
        desk.store.asked.clear()
        answer = await told(desk, rows, routing)
        assert isinstance(answer, ScoredSlice)
        await shadows_done(desk, 3)
        assert len(desk.store.asked) == 1
        first, *others = desk.log.offered
        assert [(r.origin.version, r.origin.role) for r in others] == [(TWO, "shadow"), (THREE, "shadow")]
        for record in others:
            assert (list(record.ids), record.t, record.inputs) == (list(first.ids), first.t, first.inputs)
            np.testing.assert_array_equal(record.matrix, first.matrix)
            np.testing.assert_array_equal(record.scores, models[record.origin.version].runtime.score(first.matrix))
            found = routing.read_counts(1).versions[record.origin.version]
            assert (found.requests, found.rows, found.latency.n, found.differences.rows) == (1, 30, 0, 30)
            np.testing.assert_array_equal(found.differences.pairs, np.column_stack([answer.scores, record.scores]))


def other_plan(model: ServedModel) -> ServedModel:
    """Return a version whose package says another plan, as far as the server can see."""
    return replace(model, package=replace(model.package, plan={**model.package.plan, "hash": "another"}))


async def test_shadows_are_left_out_where_there_is_no_truth_or_no_time(
    shared: Sandbox, models: dict[str, ServedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with at_a_desk(shared) as desk:
        routing = routed(desk, SHADOW, models)

        def skipped(reason: str) -> list[int]:
            return [desk.metrics.shadow_skipped(models[TWO].name, version, reason).value for version in (TWO, THREE)]

        desk.store.away = True
        assert isinstance(await told(desk, ask(3), routing), ScoredSlice)
        assert skipped("store") == [3, 3]
        desk.store.away = False
        monkeypatch.setattr("skewless.serving.prediction.shadows._MAX_PENDING_ROWS", 5)
        assert isinstance(await told(desk, ask(6), routing), ScoredSlice)
        assert skipped("behind") == [6, 6]
        await desk.predictor.close()
        assert [record.origin.role for record in desk.log.offered] == ["champion"] * 2


async def test_a_shadow_that_fails_is_counted_and_the_others_go_on(
    shared: Sandbox, models: dict[str, ServedModel]
) -> None:
    class BrokenGroup:
        n_outputs, runtime_id = 1, "broken"

        def score(self, _: object) -> None:
            raise ZeroDivisionError

    async with at_a_desk(shared) as desk:
        broken = replace(models[TWO], runtime=BrokenGroup())  # type: ignore[arg-type]
        routing = routed(desk, SHADOW, {**models, TWO: broken})
        assert isinstance(await told(desk, ask(3), routing), ScoredSlice)
        await shadows_done(desk, 2)
        assert [record.origin.version for record in desk.log.offered] == [ONE, THREE]
        found = routing.read_counts(1).versions
        assert [(found[version].requests, found[version].failed) for version in (TWO, THREE)] == [(1, 1), (1, 0)]
        assert desk.metrics.shadow_skipped(broken.name, TWO, "failed").value == 3


async def test_a_policy_that_cannot_be_kept_is_refused(shared: Sandbox, models: dict[str, ServedModel]) -> None:
    async with at_a_desk(shared) as desk:
        with pytest.raises(PackageError, match=r"has a sticky key that is not an input.*'colour'"):
            routed(desk, replace(CANARY, sticky=("colour",)), models)
        two = models[TWO]
        fewer = replace(two, plan=replace(two.plan, services=two.plan.services, request=two.plan.request[:1]))
        with pytest.raises(PackageError, match="has other inputs than the champion 000001"):
            routed(desk, CANARY, {**models, TWO: fewer})
        with pytest.raises(PackageError, match="has other outputs than the champion 000001"):
            routed(desk, CANARY, {**models, TWO: strict(two, decisions={"refuse": 0.5})})
