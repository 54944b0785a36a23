"""Questions that are answered together get what each would get alone, bit by bit."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from skewless.contract.errors import BusyError, RequestError, SkewlessError, StoreError
from skewless.contract.status import Status
from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.prediction.predictor import PredictorLimits
from skewless.serving.prediction.routing import ScoringRequest
from skewless.serving.prediction.scored_batch import EXTRAS, ScoredSlice
from tests.integration.serving.core.desk import Desk, at_a_desk, contents, good, strict
from tests.worlds.planted import RuntimeBefore
from tests.worlds.trained import SECOND, Sandbox, ask

HOUR_US = 3_600 * SECOND


def mixed(desk: Desk, second: ServedModel, n: int) -> list[ScoringRequest]:
    """Return questions of every kind, in no order: models, sizes, times, vectors, unknown and null keys."""
    rng = np.random.default_rng(3)
    requests = []
    for i in range(n):
        model = second if rng.random() < 0.4 else desk.place.model
        options: dict[str, Any] = {"extras": tuple(name for name in EXTRAS if rng.random() < 0.2)}
        if rng.random() < 0.3:
            options["as_of"] = desk.clock.now_us() - int(rng.integers(0, 3)) * 24 * HOUR_US
        if rng.random() < 0.3:
            options["max_age_us"] = int(rng.integers(1, 30)) * HOUR_US
        if rng.random() < 0.2:
            matrix = rng.normal(50, 30, (int(rng.integers(1, 5)), model.runtime.n_features))
            matrix[0, :3] = [np.nan, np.inf, -0.0]
            requests.append(desk.vectors(matrix, model, **options))
            continue
        rows = ask(int(rng.integers(1, 6)), first=i % 50)
        if rng.random() < 0.2:
            rows[0] |= {"card_id": None} if rng.random() < 0.5 else {"card_id": 1, "shop_id": "no such"}
        requests.append(desk.request(rows, model, **options))
    return requests


async def test_two_hundred_at_once_are_answered_as_one_by_one(shared: Sandbox) -> None:
    second = shared.load("000002")
    async with at_a_desk(shared) as desk:
        requests = mixed(desk, strict(second), 200)
        together = await desk.answers(requests)
        rounds = len(desk.store.asked)
        alone = [await desk.answer(request) for request in requests]
        assert list(map(contents, together)) == list(map(contents, alone))
        kinds = Counter(type(answer).__name__ for answer in together)
        assert kinds["ScoredSlice"] > 150
        assert kinds["StoreError"] > 5  # rows too old for a caller whose model refuses
        assert rounds < 5
        assert sum(map(len, desk.store.asked[:rounds])) == len(set().union(*desk.store.asked[:rounds]))


async def test_every_row_has_an_id_of_its_own(shared: Sandbox) -> None:
    async with at_a_desk(shared) as desk:
        found = [good(answer) for answer in await desk.answers([desk.request(ask(3, i)) for i in range(40)])]
        names = [name for answer in found for name in answer.ids]
        assert len(set(names)) == len(names) == 120
        assert {name for record in desk.log.offered for name in record.ids} == set(names)
        assert len(desk.log.offered) < 5


async def test_a_batch_has_one_time_and_is_logged_with_its_inputs(shared: Sandbox) -> None:
    async with at_a_desk(shared) as desk:
        found = [good(answer) for answer in await desk.answers([desk.request(ask(2, i)) for i in range(5)])]
        assert {answer.t for answer in found} == {desk.clock.now_us() // 1_000 * 1_000}
        (record,) = desk.log.offered
        assert [name for answer in found for name in answer.ids] == list(record.ids)
        assert record.scores.tobytes() == np.concatenate([answer.scores for answer in found]).tobytes()
        assert b'"card_id":%d' % ask(1, 1)[0]["card_id"] in record.inputs[2]


@pytest.mark.parametrize(
    "limits", [PredictorLimits(max_in_flight=8), PredictorLimits(max_batch=2)], ids=["requests", "rows"]
)
async def test_more_than_is_taken_is_refused_at_once_and_later_taken_again(
    shared: Sandbox, limits: PredictorLimits
) -> None:
    """Of two rows a batch, eight are taken at a time."""
    async with at_a_desk(shared, limits) as desk:
        for turn in range(3):
            desk.store.open.clear()
            asked = asyncio.gather(*(desk.answer(desk.request(ask(1, i))) for i in range(11)))
            for _ in range(10):
                await asyncio.sleep(0)
            assert desk.refused("overload") == 3 * (turn + 1)
            desk.store.open.set()
            answers = await asked
            assert [type(answer) for answer in answers] == [ScoredSlice] * 8 + [BusyError] * 3
        assert isinstance(await desk.answer(desk.request(ask(1))), ScoredSlice)


async def test_one_request_may_be_larger_than_what_is_taken_in_all(shared: Sandbox) -> None:
    async with at_a_desk(shared, PredictorLimits(max_batch=2)) as desk:
        assert good(await desk.answer(desk.request(ask(30)))).n == 30


async def test_4_7_a_row_that_is_not_of_its_view_is_unavailable_only_to_who_asked_for_it(shared: Sandbox) -> None:
    async with at_a_desk(shared) as desk:
        expected = [contents(await desk.answer(desk.request(ask(1, i)))) for i in range(6)]
        desk.store.rows[shared.key("card_days", ask(1, 2)[0]["card_id"])] = b"nonsense"
        refusing = desk.request(ask(1, 2), strict(shared.model))
        *found, refused = await desk.answers([*(desk.request(ask(1, i)) for i in range(6)), refusing])
        harmed = good(found[2])
        of_card = [view.name for view in shared.model.plan.all_views].index("card_days")
        lost = harmed.status == Status.UNAVAILABLE
        assert harmed.degraded
        assert lost.any()
        assert np.flatnonzero(lost.any(axis=0)).tolist() == [of_card]
        assert isinstance(refused, StoreError)
        assert [contents(found[i]) for i in (0, 1, 3, 4, 5)] == [expected[i] for i in (0, 1, 3, 4, 5)]
        desk.store.rows.clear()
        assert contents(await desk.answer(desk.request(ask(1, 2)))) == expected[2]


class BrokenRuntime(RuntimeBefore):
    """A runtime whose contributions, and whose scores of many rows, fail by a defect."""

    def score(self, matrix: Any) -> Any:  # noqa: ANN401 - as in the runtime
        if len(matrix) > 5:
            raise ZeroDivisionError
        return super().score(matrix)

    def contributions(self, matrix: Any) -> Any:  # noqa: ANN401 - as in the runtime
        raise ZeroDivisionError(len(matrix))


async def test_a_defect_is_told_to_those_it_hits_and_the_queue_goes_on(shared: Sandbox) -> None:
    broken = replace(shared.model, runtime=BrokenRuntime(shared.model.runtime, lambda matrix: matrix))
    async with at_a_desk(shared) as desk:
        requests = [
            desk.request(ask(6), broken),
            desk.request(ask(2), broken, extras=("contributions",)),
            desk.vectors(np.zeros((6, shared.model.runtime.n_features)), broken),
            desk.request(ask(2)),
        ]
        for _ in range(2):
            with capture_logs() as said:
                *failed, last = await desk.answers(requests)
            assert [type(item["exc_info"]) for item in said] == [ZeroDivisionError] * 3
            assert [type(error) for error in failed] == [SkewlessError] * 3
            assert {error.as_dict()["thing"] for error in failed if isinstance(error, SkewlessError)} == {"the server"}
            assert isinstance(last, ScoredSlice)


async def test_a_defect_on_the_way_to_the_store_is_told_as_well(shared: Sandbox) -> None:
    async with at_a_desk(shared) as desk:
        desk.store.defect = True
        with capture_logs() as said:
            found = await desk.answers([desk.request(ask(1)), desk.request(ask(2), strict(shared.model))])
        assert [type(error) for error in found] == [SkewlessError] * 2
        assert {item["event"] for item in said} == {"prediction_failed"}
        desk.store.defect = False
        assert isinstance(await desk.answer(desk.request(ask(1))), ScoredSlice)


async def test_rows_are_checked_before_anything_is_begun(shared: Sandbox) -> None:
    async with at_a_desk(shared, PredictorLimits(max_batch=2)) as desk:
        for rows in ([], ask(3)):
            with pytest.raises(RequestError):
                await desk.predictor.predict(shared.model, rows)
        with pytest.raises(RequestError, match="row 1"):
            await desk.predictor.predict(shared.model, [ask(1)[0], {**ask(1)[0], "amount": "much"}])
        assert desk.store.asked == []


async def test_contributions_and_leaves_are_the_librarys_and_add_up_to_the_margin(shared: Sandbox) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    async with at_a_desk(shared) as desk:
        answer = good(await desk.answer(desk.request(ask(20), extras=("contributions", "leaves"))))
        booster = lightgbm.Booster(model_file=str(shared.model.package.model_file))
        expected = booster.predict(answer.matrix, pred_contrib=True, num_threads=1)
        contributions = answer.extra_values("contributions")
        assert contributions is not None
        np.testing.assert_array_equal(contributions, expected)
        leaves = answer.extra_values("leaves")
        assert leaves is not None
        np.testing.assert_array_equal(leaves, booster.predict(answer.matrix, pred_leaf=True, num_threads=1))
        margins = booster.predict(answer.matrix, raw_score=True, num_threads=1)
        np.testing.assert_allclose(contributions.sum(axis=1), margins, rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(answer.scores, booster.predict(answer.matrix, num_threads=1))


@pytest.mark.parametrize("seconds", [1, 40 * 24 * 3_600])
async def test_rows_older_than_a_caller_accepts_are_stale(shared: Sandbox, seconds: int) -> None:
    """The oracle is the age that the answer itself shows."""
    async with at_a_desk(shared) as desk:
        limit = seconds * SECOND
        plain = good(await desk.answer(desk.request(ask(20))))
        answer = good(await desk.answer(desk.request(ask(20), max_age_us=limit)))
        expected = np.nan_to_num(answer.ages_s, nan=-1.0) > seconds
        np.testing.assert_array_equal(answer.stale, expected)
        assert expected.any() == (seconds == 1)
        np.testing.assert_array_equal(answer.scores, plain.scores)
        refusing = await desk.answer(desk.request(ask(20), strict(shared.model), max_age_us=limit))
        assert isinstance(refusing, StoreError if seconds == 1 else ScoredSlice)
        assert (Status.NOT_FOUND in answer.status) == bool(np.isnan(answer.ages_s).any())


async def test_who_was_refused_is_not_counted_as_answered(shared: Sandbox) -> None:
    model = strict(shared.model)
    async with at_a_desk(shared) as desk:
        requests = [
            desk.request(ask(1), model, max_age_us=1),
            desk.request(ask(1), model),
            desk.request(ask(2), model),
        ]
        found = await desk.answers(requests)
        assert [type(answer) for answer in found] == [StoreError, ScoredSlice, ScoredSlice]
        assert desk.outcomes("ok", model) == 2
