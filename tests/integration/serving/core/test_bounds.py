"""Values outside a model's bounds: flagged or refused; the vector stays what it is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import orjson
import pytest

from skewless.contract.bounds import Bound, Bounds
from skewless.contract.errors import RequestError, StoreError
from skewless.contract.lifecycle import BoundsPolicy
from skewless.contract.spec import MissingPolicy
from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.http.reply import predictions_json, scores_json
from tests.integration.serving.core.desk import at_a_desk, contents, good
from tests.worlds.trained import Sandbox, ask

FEW = "card_days__payments_7d"
LIMIT = 3.0
BOUNDS = Bounds(
    features={FEW: Bound(high=LIMIT)},
    fields={"amount": Bound(low=0.0, high=10.0), "shop_id": Bound(nullable=False)},
)


def bounded(
    place: Sandbox, policy: BoundsPolicy, missing: MissingPolicy = "null", bounds: Bounds = BOUNDS
) -> ServedModel:
    package = place.model.package
    spec = replace(package.spec, bounds=policy, missing=missing)
    return replace(place.model, package=replace(package, spec=spec, bounds=bounds.as_dict()))


def expected(matrix: np.ndarray[tuple[int, ...], np.dtype[np.float64]], model: ServedModel, n: int) -> list[list[str]]:
    """The names that must be flagged, found value by value."""
    few = matrix[:, model.assembler.labels.index(FEW)].tolist()
    amounts = [row["amount"] for row in ask(n)]
    return [
        [name for name, broken in ((FEW, few[i] > LIMIT), ("amount", amounts[i] > 10.0)) if broken] for i in range(n)
    ]


async def test_values_outside_are_flagged_and_counted(shared: Sandbox) -> None:
    model, n = bounded(shared, "flag"), 12
    async with at_a_desk(shared) as desk:
        free, flagged = map(good, await desk.answers([desk.request(ask(n)), desk.request(ask(n), model)]))
        wanted = expected(free.matrix, model, n)
        assert flagged.out_of_bounds == wanted
        assert {name for names in wanted for name in names} == {FEW, "amount"}
        assert [] in wanted
        # Nothing else differs, bit by bit.
        assert contents(flagged) == contents(free)
        assert scores_json(flagged) is None
        shown = orjson.loads(orjson.dumps(predictions_json(flagged, features=False)))["predictions"]
        assert [item.get("out_of_bounds", []) for item in shown] == wanted
        counts = {name: desk.metrics.out_of_bounds(model.name, model.version, name).value for name in (FEW, "amount")}
        assert counts == {name: sum(name in names for names in wanted) for name in counts}


async def test_each_request_of_a_batch_hears_of_its_own_rows(shared: Sandbox) -> None:
    model = bounded(shared, "flag")
    async with at_a_desk(shared) as desk:
        rows = [ask(1, 0), ask(1, 9), ask(2, 0)]
        first, second, third = map(good, await desk.answers([desk.request(part, model) for part in rows]))
        assert first.scored is second.scored
        assert "amount" not in (first.out_of_bounds or [[]])[0]
        assert "amount" in (second.out_of_bounds or [[]])[0]
        assert len(third.out_of_bounds or []) == 2


async def test_what_is_sent_outside_is_refused_before_any_work(shared: Sandbox) -> None:
    model = bounded(shared, "refuse")
    async with at_a_desk(shared) as desk:
        refused = await desk.answer(desk.request(ask(9), model))
        assert isinstance(refused, RequestError)
        for part in ("row 6", "'amount'", "10.3", "from 0 to 10"):
            assert part in refused.sentence()
        assert desk.store.asked == []
        assert desk.metrics.out_of_bounds(model.name, model.version, "amount").value == 1
        null = await desk.answer(desk.request([{**ask(1)[0], "shop_id": None}], model))
        assert isinstance(null, RequestError)
        assert "a value" in null.fix
        assert good(await desk.answer(desk.request(ask(2), model))).n == 2


async def test_sent_vectors_are_the_callers_too(shared: Sandbox) -> None:
    model, free = bounded(shared, "refuse"), bounded(shared, "off")
    async with at_a_desk(shared) as desk:
        matrix = good(await desk.answer(desk.request(ask(3), free))).matrix.copy()
        matrix[:, model.assembler.labels.index(FEW)] = [1.0, LIMIT + 1, np.nan]
        refused = await desk.answer(desk.vectors(matrix, model))
        assert isinstance(refused, RequestError)
        assert "row 1" in refused.sentence()
        assert FEW in refused.sentence()
        assert good(await desk.answer(desk.vectors(matrix[[0, 2]], model))).out_of_bounds is None
        assert good(await desk.answer(desk.vectors(matrix, free))).out_of_bounds is None


@pytest.mark.parametrize("missing", ["null", "refuse"])
async def test_a_looked_up_value_outside_is_treated_as_one_that_is_missing(
    shared: Sandbox, missing: MissingPolicy
) -> None:
    model = bounded(shared, "refuse", missing, Bounds(features={FEW: Bound(high=-1.0)}))
    async with at_a_desk(shared) as desk:
        answer = await desk.answer(desk.request(ask(2), model))
        if missing == "refuse":
            assert isinstance(answer, StoreError)
            assert FEW in answer.sentence()
        else:
            assert good(answer).out_of_bounds == [[FEW], [FEW]]


def test_models_without_bounds_look_at_nothing(shared: Sandbox) -> None:
    assert shared.model.bounds is None
    assert bounded(shared, "off").bounds is None
    assert bounded(shared, "flag", bounds=Bounds()).bounds is None
    assert json.loads((shared.model.package.path / "bounds.json").read_text()) == {"features": {}, "fields": {}}
