"""A reply that waits for its log row."""

from __future__ import annotations

import asyncio
import shutil

import pyarrow.parquet as pq
import pytest

from skewless.contract.errors import DeadlineError, StoreError
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.online.redis_store import RedisReader
from skewless.infra.records.predictions.segments import prediction_spool
from skewless.infra.records.predictions.writer import PredictionWriter
from skewless.serving.prediction.predictor import Predictor
from skewless.serving.prediction.ticket import Ticket
from tests.integration.serving.core.desk import at_a_desk, good, strict
from tests.worlds.trained import Sandbox, ask

SOON_S = 0.02


async def test_a_reply_comes_once_its_row_is_durable(shared: Sandbox) -> None:
    model = strict(shared.model, log="required")
    async with at_a_desk(shared) as desk:
        waiting = asyncio.ensure_future(desk.answers([desk.request(ask(2, i), model) for i in range(3)]))
        others = await desk.answers([desk.request(ask(1)), desk.request(ask(1))])
        assert all(good(answer).log == "best_effort" for answer in others)
        while not desk.log.required:  # noqa: ASYNC110 - a fake has no event
            await asyncio.sleep(0.001)
        assert not waiting.done()
        ((record, durable),) = desk.log.required
        durable.set_result(None)
        answers = [good(answer) for answer in await waiting]
        assert [name for answer in answers for name in answer.ids] == list(record.ids)
        assert {answer.log for answer in answers} == {"required"}


async def test_a_row_that_cannot_be_kept_is_no_answer(shared: Sandbox) -> None:
    model = strict(shared.model, log="required")
    async with at_a_desk(shared) as desk:
        waiting = asyncio.ensure_future(desk.answer(desk.request(ask(2), model)))
        while not desk.log.required:  # noqa: ASYNC110 - a fake has no event
            await asyncio.sleep(0.001)
        desk.log.required[0][1].set_exception(StoreError("the log", "cannot be written", fix="free disk space"))
        error = await waiting
        assert isinstance(error, StoreError)
        assert error.thing == "the log"
        desk.log.full = True
        assert isinstance(await desk.answer(desk.request(ask(2), model)), StoreError)
        assert desk.outcomes("ok", model) == 0


async def test_a_deadline_while_it_is_written_is_kept_and_nothing_is_logged_twice(
    shared: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = strict(shared.model, log="required")
    async with at_a_desk(shared) as desk:
        tickets: list[Ticket] = []
        start = desk.predictor._start_timer

        def kept(ticket: Ticket) -> Ticket:
            tickets.append(start(ticket))
            return ticket

        monkeypatch.setattr(desk.predictor, "_start_timer", kept)
        late = desk.request(ask(2), model, deadline=desk.loop_s + 1_000)
        waiting = [asyncio.ensure_future(desk.answer(one)) for one in (late, desk.request(ask(1), model))]
        while not desk.log.required:  # noqa: ASYNC110 - a fake has no event
            await asyncio.sleep(0.001)
        desk.predictor._evaluator.expire_ticket(tickets[0])  # on a slow machine the time itself might be over too soon
        assert isinstance(await waiting[0], DeadlineError)
        ((record, durable),) = desk.log.required
        assert len(record.ids) == 3
        durable.set_result(None)
        assert good(await waiting[1]).n == 1
        assert len(desk.log.required) == 1


async def test_a_degraded_answer_is_durable_as_well(shared: Sandbox) -> None:
    model = strict(shared.model, log="required")
    async with at_a_desk(shared) as desk:
        desk.store.open.clear()
        waiting = asyncio.ensure_future(desk.answer(desk.request(ask(2), model, deadline=desk.loop_s + SOON_S)))
        while not desk.log.required:  # noqa: ASYNC110 - a fake has no event
            await asyncio.sleep(0.001)
        desk.store.open.set()
        await desk.answer(desk.request(ask(1)))
        assert not waiting.done()
        desk.log.required[0][1].set_result(None)
        assert good(await waiting).degraded
        assert len(desk.log.required) == 1


async def test_on_a_real_disk_the_file_is_there_when_the_reply_is(place: Sandbox) -> None:
    model = strict(place.model, log="required")

    dropped: list[tuple[int, str]] = []

    def drop(n: int, why: str) -> None:
        dropped.append((n, why))

    reader = RedisReader(place.project.redis_url)
    spool = prediction_spool(ProjectState(place.state))
    log = PredictionWriter(spool, capacity=100, flush_seconds=1_000, on_drop=drop)
    predictor = Predictor(online=reader, clock=place.project.clock, log=log)
    for _ in range(3):
        answer = await predictor.predict(model, ask(4))
        files = spool.waiting()
        assert set(answer.ids) <= {name for path in files for name in pq.read_table(path)["id"].to_pylist()}
    shutil.rmtree(spool.folder)
    spool.folder.write_bytes(b"")  # no folder can be made here
    with pytest.raises(StoreError, match="cannot be written"):
        await predictor.predict(model, ask(4))
    assert dropped == [(4, "disk")]
    await predictor.close()
    log.close()
    await reader.close()
