"""A row that is damaged in the store is UNAVAILABLE for its entity; the others of the request get theirs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import orjson
import pytest

from skewless.client.replies import read_prediction
from skewless.contract.errors import StoreError
from skewless.contract.keys import KeyCodec
from skewless.contract.status import Status
from skewless.serving.http.reply import predictions_json
from skewless.serving.prediction.scored_batch import ScoredSlice
from tests.integration.serving.core.desk import Desk, at_a_desk, good, strict
from tests.worlds.trained import Sandbox, ask

ROWS = 12


async def harm(desk: Desk, view: int, row: int, place: int) -> None:
    """Flip a bit of the row that a view holds for an entity of ``ask``."""
    plan = desk.place.model.plan
    keys = KeyCodec(plan.project, plan.views[view])
    asked = ask(ROWS)[row]
    (name,) = keys.encode_columns({column: [asked[column]] for column in keys.names})
    assert name is not None
    (stored,) = await desk.store.inner.get([name])
    assert stored is not None
    altered = bytearray(stored)
    altered[place] ^= 0x80
    desk.store.rows[name] = bytes(altered)


@pytest.mark.parametrize("place", [0, 32, 44, 48, 60, -1])
async def test_a_damaged_row_is_unavailable_for_its_entity(shared: Sandbox, place: int) -> None:
    async with at_a_desk(shared) as desk:
        whole = good(await desk.answer(desk.request(ask(ROWS))))
        await harm(desk, 0, 3, place)
        answer = good(await desk.answer(desk.request(ask(ROWS))))
        harmed = answer.status[:, 0] == Status.UNAVAILABLE
        assert harmed.any()
        assert answer.degraded
        np.testing.assert_array_equal(answer.status[~harmed], whole.status[~harmed])
        np.testing.assert_array_equal(answer.matrix[~harmed], whole.matrix[~harmed])
        name = shared.model.plan.all_views[0].name
        assert desk.metrics.reads(name, "UNAVAILABLE").value == harmed.sum()
        assert desk.outcomes("degraded") == 1


async def test_only_who_asks_for_a_damaged_row_is_refused_where_the_model_refuses(shared: Sandbox) -> None:
    async with at_a_desk(shared) as desk:
        await harm(desk, 0, 0, 60)
        model = strict(shared.model)
        clean = [row for row in ask(ROWS) if row != ask(ROWS)[0]][:1]
        found = await desk.answers([desk.request(ask(1), model), desk.request(clean, model)])
        assert isinstance(found[0], StoreError)
        assert "corrupt" in found[0].sentence()
        assert not good(found[1]).degraded


async def test_infinities_are_told_from_missing_values_in_replies(shared: Sandbox) -> None:
    async with at_a_desk(shared) as desk:
        answer = good(await desk.answer(desk.request(ask(1))))
        odd = np.array([np.inf, -np.inf, np.nan])
        matrix = answer.scored.matrix.copy()
        matrix[0, :3] = odd
        scored = replace(answer.scored, matrix=matrix, scores=np.array([np.inf]))
        body = predictions_json(ScoredSlice(scored, 0, 1, None), features=True)
        (item,) = orjson.loads(orjson.dumps(body))["predictions"]
        labels = shared.model.assembler.labels[:3]
        assert [item["features"][label] for label in labels] == ["Infinity", "-Infinity", None]
        read = read_prediction(item)
        assert [read.features[label] for label in labels] == [np.inf, -np.inf, None]
        assert (item["score"], read.score) == ("Infinity", np.inf)
