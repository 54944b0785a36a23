"""Answers from caches are those that the store and the model would give at that age, and replay agrees."""

from __future__ import annotations

import asyncio
import threading

import numpy as np

from skewless.contract.status import Status
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.serving.prediction.predictor import Predictor, PredictorLimits
from skewless.serving.prediction.scored_batch import ScoredSlice
from tests.integration.serving.core.desk import at_a_desk, contents, good, strict
from tests.worlds.trained import SECOND, Sandbox, ask, later_rows

MINUTE_CACHE = PredictorLimits(feature_cache_ms=60_000)
PREDICTIONS = PredictorLimits(prediction_cache=10_000)


async def test_within_the_age_keys_are_read_once(shared: Sandbox) -> None:
    async with at_a_desk(shared, MINUTE_CACHE) as desk:
        first = await desk.answer(desk.request(ask(5)))
        for _ in range(20):
            assert contents(await desk.answer(desk.request(ask(5)))) == contents(first)
        assert len(desk.store.asked) == 1
        await desk.answer(desk.request(ask(7)))
        assert [len(keys) for keys in desk.store.asked] == [10, 4]
        desk.clock.set(desk.clock.now_us() + 60 * SECOND + 1)
        await desk.answer(desk.request(ask(5)))
        assert len(desk.store.asked) == 3
        assert desk.metrics.hits("feature").value == 20 * 10 + 10


async def test_ttl_and_age_are_evaluated_at_each_time(shared: Sandbox) -> None:
    """The bytes are cached, what they mean is not: the oracle is a server without a cache."""
    days = 24 * 3_600 * SECOND
    now = shared.now_us()
    found: dict[PredictorLimits, list[object]] = {}
    for limits in (PredictorLimits(), MINUTE_CACHE):
        async with at_a_desk(shared, limits) as desk:
            desk.clock.set(now)
            answers = []
            for back in (0, 1, 40, 4_000):
                request = desk.request(ask(6), as_of=desk.clock.now_us() - back * days, max_age_us=days)
                answers.append(good(await desk.answer(request)))
            assert len({answer.status.tobytes() for answer in answers}) > 1
            assert len(desk.store.asked) == (1 if limits is MINUTE_CACHE else 4)
            found[limits] = list(map(contents, answers))
    plain, cached = found.values()
    assert plain == cached


async def test_a_store_that_is_away_goes_unnoticed_for_what_is_cached(shared: Sandbox) -> None:
    async with at_a_desk(shared, MINUTE_CACHE) as desk:
        first = await desk.answer(desk.request(ask(2)))
        desk.store.away = True
        assert contents(await desk.answer(desk.request(ask(2)))) == contents(first)
        partly = good(await desk.answer(desk.request(ask(3))))
        assert partly.degraded
        assert set(partly.status.ravel().tolist()) == {int(Status.UNAVAILABLE)}
        desk.store.away = False
        assert not good(await desk.answer(desk.request(ask(3)))).degraded


async def test_cached_scores_have_the_same_bits(shared: Sandbox) -> None:
    other = shared.load("000002")
    async with at_a_desk(shared, PREDICTIONS) as desk:
        rng = np.random.default_rng(9)
        vectors = rng.normal(50, 30, (8, shared.model.runtime.n_features))
        vectors[2] = np.nan
        for model in (shared.model, other, shared.model):
            for n in (3, 8, 8, 1):
                answer = good(await desk.answer(desk.request(ask(n), model)))
                assert answer.scores.tobytes() == model.runtime.score(answer.matrix).tobytes()
                sent = good(await desk.answer(desk.vectors(np.ascontiguousarray(vectors[:n]), model)))
                assert sent.scores.tobytes() == model.runtime.score(sent.matrix).tobytes()
        assert desk.metrics.misses("prediction").value == 2 * 16
        assert desk.metrics.hits("prediction").value == 3 * 40 - 2 * 16
        asked = good(await desk.answer(desk.request(ask(8), extras=("contributions",))))
        assert asked.scores.tobytes() == shared.model.runtime.score(asked.matrix).tobytes()


def test_replay_finds_nothing_while_caches_serve_and_views_change(place: Sandbox) -> None:
    """Predictions without a pause, while another thread publishes and materialises again and again."""
    limits = PredictorLimits(feature_cache_ms=50, prediction_cache=1_000)
    changed = threading.Event()

    def publish() -> None:
        for turn in range(4):
            place.publish(later_rows(place, 10, factor=2.0 + turn))
            place.project.materialize(check=False)
        changed.set()

    async def serve() -> list[ScoredSlice]:
        reader, log = RedisReader(place.project.redis_url), place.log()
        predictor = Predictor(online=reader, clock=place.project.clock, log=log, limits=limits)
        answers: list[ScoredSlice] = []

        async def client(first: int) -> None:
            while not changed.is_set() or len(answers) < 200:
                answers.append(await predictor.predict(model, ask(4, first)))
                await asyncio.sleep(0.005)

        publishing = asyncio.create_task(asyncio.to_thread(publish))
        await asyncio.gather(*map(client, (0, 3, 6, 30)))
        await publishing
        await predictor.close()
        log.close()
        await reader.close()
        return answers

    model = place.load("000001")
    answers = asyncio.run(serve())
    assert len({answer.matrix.tobytes() for answer in answers}) > 5
    report = place.project.replay()
    assert report.ok, report.lines()
    assert report.compared == sum(answer.n for answer in answers)


async def test_strict_models_do_not_get_cached_rows_of_a_store_that_lost_some(shared: Sandbox) -> None:
    """What was lost is not kept: the next read asks again."""
    async with at_a_desk(shared, MINUTE_CACHE) as desk:
        model = strict(shared.model)
        plain = await desk.answer(desk.request(ask(1), model))
        desk.clock.set(desk.clock.now_us() + 120 * SECOND)
        inner = desk.store.inner

        class Lost:
            def __getattr__(self, name: str) -> object:
                return getattr(inner, name)

            async def get_with_markers(self, keys: list[bytes], names: list[str]) -> object:
                rows, markers = await inner.get_with_markers(keys, names)
                return rows, [None for _ in markers]

        desk.store.inner = Lost()  # type: ignore[assignment]
        assert not isinstance(await desk.answer(desk.request(ask(1), model)), type(plain))
        desk.store.inner = inner
        asked = len(desk.store.asked)
        assert good(await desk.answer(desk.request(ask(1), model))).n == 1
        assert len(desk.store.asked) == asked + 1
