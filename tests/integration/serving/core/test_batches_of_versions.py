"""A batch with rows of two versions gives the replies, log rows and counts that its requests give one by one."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from skewless.contract.errors import SkewlessError
from skewless.contract.traffic import TrafficPolicy
from skewless.infra.models.packages.served_model import RowTime, ServedModel
from skewless.infra.models.runtimes.port import Matrix, Scores
from skewless.infra.records.predictions.batches import ConstantColumns, to_batch
from skewless.serving.http.predict_route import encode_reply
from skewless.serving.prediction.routing import MergedSlices, Routing
from skewless.serving.prediction.scored_batch import ScoredSlice
from tests.integration.serving.core.desk import Desk, at_a_desk, contents, strict
from tests.worlds.trained import Row, Sandbox, ask

ONE, TWO, THREE = "000001", "000002", "000003"
CANARY = TrafficPolicy(
    number=4, phase="canary", champion=ONE, challenger=TWO, share=0.5, sticky=("card_id",), salt="s", shadows=(THREE,)
)
OPTIONS: Sequence[dict[str, Any]] = [*[{}] * 9, {"extras": ("contributions", "leaves")}, {"max_age_us": 1}]
Answer = ScoredSlice | MergedSlices | SkewlessError
_COUNTS = re.compile(
    r"skewless_(requests|rows|feature_reads|feature_age_seconds|stale_reads|out_of_bounds|arm_requests|arm_failures)"
)


@dataclass(frozen=True)
class BatchOutcome:
    """Replies, log rows and counts, without ids, which differ, and without times."""

    replies: list[tuple[Any, ...]]
    logged: Counter[str]
    metrics: list[str]
    counts: dict[str, Any]
    reads: int


@pytest.fixture(scope="module")
def versions(shared: Sandbox) -> dict[str, ServedModel]:
    return {version: shared.load(version) for version in (ONE, TWO, THREE)}


def make_requests(seed: int) -> list[list[Row]]:
    """Return requests of one row or a few, some of unknown entities."""
    chance = np.random.default_rng(seed)
    rows = [{**row, "card_id": 77 if chance.random() < 0.1 else row["card_id"]} for row in ask(60)]
    return [
        [rows[i] for i in chance.integers(0, 60, chance.choice([1, 1, 1, 3]))] for _ in range(chance.integers(2, 40))
    ]


async def outcome_of(
    place: Sandbox,
    models: dict[str, ServedModel],
    requests: Sequence[list[Row]],
    at_us: int,
    *,
    together: bool,
    away: bool,
) -> BatchOutcome:
    async with at_a_desk(place) as desk:
        desk.clock.set(at_us)
        desk.store.away = away
        routing = Routing(CANARY, models, desk.metrics)
        asked = [submit(desk, routing, rows, **OPTIONS[i % len(OPTIONS)]) for i, rows in enumerate(requests)]
        answers = await asyncio.gather(*asked) if together else [await one for one in asked]
        await desk.predictor.close()
        return outcome(desk, routing, answers)


def submit(desk: Desk, routing: Routing, rows: Sequence[Row], **options: Any) -> Coroutine[Any, Any, Answer]:  # noqa: ANN401
    async def ask_once() -> Answer:
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        desk.predictor.submit(desk.request(rows, **options)._replace(routing=routing), waiting.set_result)
        return await waiting

    return ask_once()


def outcome(desk: Desk, routing: Routing, answers: Sequence[Answer]) -> BatchOutcome:
    ids = re.compile(rb'"[0-9a-f]+-[0-9a-f]{8}-[0-9a-f]+"')
    replies = [
        (
            tuple(map(contents, answer.parts if isinstance(answer, MergedSlices) else [answer])),
            b"" if isinstance(answer, SkewlessError) else ids.sub(b"", encode_reply(answer, features=False)[0]),
            b"" if isinstance(answer, SkewlessError) else ids.sub(b"", encode_reply(answer, features=True)[0]),
        )
        for answer in answers
    ]
    rows = [
        row
        for record in desk.log.offered
        for row in to_batch([record], ConstantColumns(record.origin, "entities")).to_pylist()
    ]
    assert len({(row["id"], row["role"]) for row in rows}) == len(rows)
    lines = desk.metrics.render().decode().splitlines()
    counts = routing.read_counts(0).versions
    return BatchOutcome(
        replies=replies,
        logged=Counter(repr({name: value for name, value in row.items() if name != "id"}) for row in rows),
        metrics=sorted(line for line in lines if _COUNTS.match(line) and "_sum" not in line),
        counts={
            version: (item.requests, item.failed, item.rows, item.latency.n, item.scores, item.missing, item.by_status)
            for version, item in counts.items()
        },
        reads=len(desk.store.asked),
    )


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("decisions", [{}, {"pass": 0.0, "refuse": 0.5}])
@pytest.mark.parametrize("seed", range(4))
async def test_a_batch_of_two_versions_is_its_requests_one_by_one(
    shared: Sandbox,
    versions: dict[str, ServedModel],
    seed: int,
    decisions: dict[str, float],
    away: bool,  # noqa: FBT001 - a parameter
) -> None:
    models = {version: strict(model, decisions=decisions) for version, model in versions.items()}
    requests, at_us = make_requests(seed), shared.now_us()
    together = await outcome_of(shared, models, requests, at_us, together=True, away=away)
    alone = await outcome_of(shared, models, requests, at_us, together=False, away=away)
    assert together.reads == 1
    assert replace(together, reads=0) == replace(alone, reads=0)
    assert {ONE, TWO} <= {version for version, item in together.counts.items() if item[0]}


@contextmanager
def counted_scores(monkeypatch: pytest.MonkeyPatch, model: ServedModel) -> Iterator[list[int]]:
    """Yield the sizes of the calls of a model's runtime."""
    sizes: list[int] = []
    score = model.runtime.score

    def count_and_score(matrix: Matrix) -> Scores:
        sizes.append(len(matrix))
        return score(matrix)

    with monkeypatch.context() as patch:
        patch.setattr(model.runtime, "score", count_and_score)
        yield sizes


async def test_versions_of_one_batch_are_scored_and_logged_once(
    shared: Sandbox, versions: dict[str, ServedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with at_a_desk(shared) as desk:
        routing = Routing(replace(CANARY, shadows=()), versions, desk.metrics)
        with counted_scores(monkeypatch, versions[ONE]) as one, counted_scores(monkeypatch, versions[TWO]) as two:
            await asyncio.gather(*(submit(desk, routing, [row]) for row in ask(40)))
        await desk.predictor.close()
        (record,) = desk.log.offered
        assert (len(one), len(two), one[0] + two[0]) == (1, 1, 40)
        assert sorted((origin.version, n) for origin, n in record.origins) == [(ONE, one[0]), (TWO, two[0])]
        assert desk.metrics.batch_rows.counts[-1] == 0


async def test_a_version_that_fails_fails_no_other(shared: Sandbox, versions: dict[str, ServedModel]) -> None:
    class FailingRuntime:
        n_outputs, runtime_id = 1, "broken"

        def score(self, _: object) -> None:
            raise ZeroDivisionError

    async with at_a_desk(shared) as desk:
        broken = replace(versions[TWO], runtime=FailingRuntime())  # type: ignore[arg-type]
        routing = Routing(replace(CANARY, shadows=()), {**versions, TWO: broken}, desk.metrics)
        answers = await asyncio.gather(*(submit(desk, routing, [row]) for row in ask(40)))
        good = [answer for answer in answers if isinstance(answer, ScoredSlice)]
        assert {answer.model.version for answer in good} == {ONE}
        found = routing.read_counts(1).versions
        assert (found[ONE].requests, found[ONE].failed) == (len(good), 0)
        assert (found[TWO].requests, found[TWO].failed) == (40 - len(good), 40 - len(good))
        assert 0 < len(good) < 40


async def test_a_version_with_scores_of_another_shape_fails_no_other(
    shared: Sandbox, versions: dict[str, ServedModel]
) -> None:
    class WideRuntime:
        n_outputs, runtime_id = 1, "wide"

        def score(self, matrix: Matrix) -> Scores:
            return np.zeros((len(matrix), 2))

    async with at_a_desk(shared) as desk:
        wide = replace(versions[TWO], runtime=WideRuntime())  # type: ignore[arg-type]  # only scored
        routing = Routing(replace(CANARY, shadows=()), {**versions, TWO: wide}, desk.metrics)
        answers = await asyncio.gather(*(submit(desk, routing, [row]) for row in ask(40)))
        good = [a for a in answers if isinstance(a, ScoredSlice) and a.model.version == ONE]
        found = routing.read_counts(1).versions[ONE]
        assert (found.requests, found.failed) == (len(good), 0)
        assert 0 < len(good) < 40


async def test_a_version_that_takes_long_delays_no_other(shared: Sandbox, versions: dict[str, ServedModel]) -> None:
    async with at_a_desk(shared) as desk:
        slow = replace(versions[TWO], row_time=row_time_of(10.0))
        routing = Routing(replace(CANARY, shadows=()), {**versions, TWO: slow}, desk.metrics)
        done: list[str] = []

        async def note(row: Row) -> None:
            answer = await submit(desk, routing, [row])
            assert isinstance(answer, ScoredSlice)
            done.append(answer.model.version)

        await asyncio.gather(*map(note, ask(40)))
        assert done == sorted(done)
        assert set(done) == {ONE, TWO}


def row_time_of(seconds: float) -> RowTime:
    row_time = RowTime()
    row_time.seconds = seconds
    return row_time


@pytest.mark.parametrize("change", [{"missing": "refuse"}, {"log": "required"}])
async def test_versions_with_other_rules_are_batches_of_their_own(
    shared: Sandbox, versions: dict[str, ServedModel], change: dict[str, Any]
) -> None:
    async with at_a_desk(shared) as desk:
        routing = Routing(replace(CANARY, shadows=()), {**versions, TWO: strict(versions[TWO], **change)}, desk.metrics)
        waiting = [asyncio.create_task(submit(desk, routing, [row])) for row in ask(40)]
        while len(desk.log.offered) + len(desk.log.required) < 2:  # noqa: ASYNC110 - a fake has no event
            await asyncio.sleep(0)
        for _, durable in desk.log.required:
            durable.set_result(None)
        await asyncio.gather(*waiting)
        records = [*desk.log.offered, *(record for record, _ in desk.log.required)]
        assert sorted(origin.version for record in records for origin, _ in record.origins) == [ONE, TWO]
        assert [len(record.origins) for record in records] == [1, 1]
