"""A store that is slow or away: deadlines, the breaker, and answers without features."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from skewless.contract.errors import DeadlineError, StoreError
from skewless.contract.status import Status
from skewless.contract.vector import Matrix
from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.prediction.predictor import PredictorLimits
from tests.integration.serving.core.desk import Desk, at_a_desk, contents, good, strict
from tests.worlds.planted import RuntimeBefore
from tests.worlds.trained import Sandbox, ask

SOON_S = 0.02
BREAKER = PredictorLimits(breaker_failures=3, breaker_seconds=1_000)


def rested(desk: Desk) -> None:
    """Let the breaker's pause be over."""
    desk.predictor._evaluator.reads.breaker._open_until = 0.0


async def passed(seconds: float) -> None:
    await asyncio.sleep(seconds)


async def test_late_features_are_nulls_where_the_model_may_score_them(shared: Sandbox) -> None:
    async with at_a_desk(shared) as desk:
        desk.store.open.clear()
        answer = good(await desk.answer(desk.request(ask(3), deadline=desk.loop_s + SOON_S)))
        assert answer.degraded
        assert set(answer.status.ravel().tolist()) == {int(Status.UNAVAILABLE)}
        np.testing.assert_array_equal(answer.scores, shared.model.runtime.score(answer.matrix))
        assert (desk.refused("deadline"), desk.outcomes("degraded"), desk.outcomes("ok")) == (1, 1, 0)
        desk.store.open.set()


async def test_late_features_are_a_refusal_where_it_may_not(shared: Sandbox) -> None:
    async with at_a_desk(shared) as desk:
        desk.store.open.clear()
        request = desk.request(ask(3), strict(shared.model), deadline=desk.loop_s + SOON_S)
        assert isinstance(await desk.answer(request), DeadlineError)
        desk.store.open.set()


async def test_late_contributions_are_a_refusal(shared: Sandbox) -> None:
    """They would only be later."""
    async with at_a_desk(shared) as desk:
        desk.store.open.clear()
        request = desk.request(ask(1), deadline=desk.loop_s + SOON_S, extras=("contributions",))
        assert isinstance(await desk.answer(request), DeadlineError)
        desk.store.open.set()


async def test_who_waits_on_is_answered_by_the_store_and_late_replies_are_dropped(shared: Sandbox) -> None:
    """Of one batch some have a deadline; each row is logged once."""
    async with at_a_desk(shared) as desk:
        desk.store.open.clear()
        early = [desk.request(ask(2, i), deadline=desk.loop_s + SOON_S) for i in range(3)]
        refused = desk.request(ask(2), strict(shared.model), deadline=desk.loop_s + SOON_S)
        patient = [desk.request(ask(2, i), deadline=desk.loop_s + 1_000) for i in range(3)]
        patient.append(desk.request(ask(2)))
        waiting = asyncio.ensure_future(desk.answers(patient))
        first = await desk.answers([*early, refused])
        assert [good(answer).degraded for answer in first[:3]] == [True] * 3
        assert isinstance(first[3], DeadlineError)
        assert not waiting.done()
        desk.store.open.set()
        last = [good(answer) for answer in await waiting]
        assert [answer.degraded for answer in last] == [False] * 4
        logged = [name for record in desk.log.offered for name in record.ids]
        assert sorted(logged) == sorted(name for answer in [*map(good, first[:3]), *last] for name in answer.ids)
        assert (desk.outcomes("degraded"), desk.outcomes("ok")) == (3, 4)


async def test_a_deadline_that_is_met_changes_nothing(shared: Sandbox) -> None:
    async with at_a_desk(shared) as desk:
        plain = await desk.answer(desk.request(ask(3)))
        soon, missed = SOON_S, 0
        while (timed := good(await desk.answer(desk.request(ask(3), deadline=desk.loop_s + soon)))).degraded:
            soon, missed = soon * 2, missed + 1  # this machine is slow
        await passed(2 * soon)
        assert contents(plain) == contents(timed)
        assert desk.refused("deadline") == missed
        assert len(desk.log.offered) == 2 + missed


class SlowRuntime(RuntimeBefore):
    """A runtime that says of itself that it is slow."""


def slow(model: ServedModel) -> ServedModel:
    return replace(model, runtime=SlowRuntime(model.runtime, lambda matrix: matrix))


async def test_a_deadline_while_it_is_scored_ends_the_waiting_and_begins_nothing_new(
    shared: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = slow(shared.model)
    scored: list[int] = []
    go_on = asyncio.Event()

    async def score_in_thread(
        of: ServedModel, matrix: Matrix, extras: Sequence[str]
    ) -> tuple[object, dict[str, object]]:
        assert not extras
        scored.append(len(matrix))
        if len(matrix) > 1:
            await go_on.wait()
        return of.runtime.score(matrix), {}

    async with at_a_desk(shared) as desk:
        scoring = desk.predictor._scoring
        monkeypatch.setattr(scoring, "is_quick", lambda of, _: of is not model)
        monkeypatch.setattr(scoring, "score_in_thread", score_in_thread)
        soon = SOON_S
        while scored != [3]:
            # At first, or the deadline passed before both were scored: this machine is slow.
            scored.clear()
            go_on.clear()
            soon, before = soon * 2, desk.outcomes("ok", model)
            timed = desk.request(ask(1), model, deadline=desk.loop_s + soon)
            waiting = asyncio.ensure_future(desk.answer(desk.request(ask(2), model)))
            first = await desk.answer(timed)
            go_on.set()
            assert good(await waiting).n == 2
        assert isinstance(first, DeadlineError)
        assert desk.outcomes("ok", model) == before + 1


async def test_a_store_that_is_away_opens_the_breaker_which_closes_when_it_is_back(shared: Sandbox) -> None:
    async with at_a_desk(shared, BREAKER) as desk:
        before = await desk.answer(desk.request(ask(2)))
        desk.store.away = True
        for _ in range(3):
            assert good(await desk.answer(desk.request(ask(2)))).degraded
        assert (desk.metrics.trips.value, len(desk.store.asked)) == (1, 4)
        for _ in range(5):
            assert good(await desk.answer(desk.request(ask(2)))).degraded
            refusal = await desk.answer(desk.request(ask(2), strict(shared.model)))
            assert isinstance(refusal, StoreError)
            assert "open circuit breaker" in refusal.problem
        assert len(desk.store.asked) == 4  # it was not asked again
        rested(desk)
        assert good(await desk.answer(desk.request(ask(2)))).degraded  # the attempt
        assert (desk.metrics.trips.value, len(desk.store.asked)) == (2, 5)
        desk.store.away = False
        rested(desk)
        for _ in range(5):
            assert contents(await desk.answer(desk.request(ask(2)))) == contents(before)
        assert len(desk.store.asked) == 10


async def test_vectors_need_no_store(shared: Sandbox) -> None:
    async with at_a_desk(shared, BREAKER) as desk:
        desk.store.away = True
        matrix = np.ones((2, shared.model.runtime.n_features))
        for _ in range(5):
            await desk.answer(desk.request(ask(1)))
        answer = good(await desk.answer(desk.vectors(matrix)))
        assert (answer.degraded, answer.status.shape) == (False, (2, 0))
        np.testing.assert_array_equal(answer.scores, shared.model.runtime.score(matrix))


async def test_a_store_that_is_away_costs_the_strict_an_error_and_others_their_features(shared: Sandbox) -> None:
    async with at_a_desk(shared) as desk:
        desk.store.away = True
        lenient, strict_one = await desk.answers([desk.request(ask(1)), desk.request(ask(1), strict(shared.model))])
        assert good(lenient).degraded
        assert isinstance(strict_one, StoreError)
        assert strict_one.thing == "the store"
        assert len(desk.store.asked) == 1
