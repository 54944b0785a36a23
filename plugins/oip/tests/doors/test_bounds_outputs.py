"""Values outside a model's bounds, in the protocol."""

from __future__ import annotations

from skewless_oip.conversion import build_outputs
from skewless_oip.signature import Signature
from tests.integration.serving.core.desk import at_a_desk, good
from tests.integration.serving.core.test_bounds import bounded
from tests.worlds.trained import Sandbox, ask


async def test_the_protocol_shows_names_row_by_row(shared: Sandbox) -> None:
    model = bounded(shared, "flag")
    signature = Signature(model)
    assert "out_of_bounds" in signature.outputs
    assert "out_of_bounds" not in Signature(shared.model).outputs
    async with at_a_desk(shared) as desk:
        for n in (1, 12):
            answer = good(await desk.answer(desk.request(ask(n), model)))
            (output,) = build_outputs(signature, answer, {"out_of_bounds": False})
            names = [text.decode().split(",") if text else [] for text in output.array.tolist()]
            assert names == (answer.out_of_bounds or [[]] * n)
