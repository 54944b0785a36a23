"""Decisions of a policy and of exploration, in the protocol."""

from __future__ import annotations

import pytest

from skewless.contract.actions import Explore
from skewless.contract.errors import RequestError
from skewless_oip.conversion import build_outputs, check_vector_outputs
from skewless_oip.signature import Signature
from tests.integration.outcomes.conftest import Loop
from tests.integration.outcomes.test_policy import deciding
from tests.worlds.trained import ask


def test_outputs_say_which_rows_explore_and_the_reasons(outcome_loop: Loop) -> None:
    outcome_loop.place.project.lists.set("stolen", {str(row["card_id"]) for row in ask(200)}, reason="test")
    model = deciding(outcome_loop, explore=Explore(share=0.25, action="approve"))
    answer = outcome_loop.place.predict(ask(200), model=model)
    signature = Signature(model)
    tensors = {each.name: each for each in build_outputs(signature, answer, dict.fromkeys(signature.outputs, False))}
    explored = tensors["explored"]
    assert (explored.datatype.name, explored.array.tolist()) == ("BOOL", list(answer.explored or ()))
    assert 20 < explored.array.sum() < 90
    assert tensors["reasons"].array.tolist() == [" ".join(codes).encode() for codes in answer.reasons or ()]
    with pytest.raises(RequestError, match="output 'reasons': cannot be given for vectors: the policy"):
        check_vector_outputs(model, ["score", "reasons"])
    check_vector_outputs(model, ["score", "prediction_id"])
    plain = Signature(outcome_loop.place.model).outputs
    assert {"decision", "reasons", "explored"} & plain.keys() == set()
