"""Batch prediction closes its predictor, also after an error."""

from __future__ import annotations

import threading

import pytest

from skewless.contract.errors import RequestError
from skewless.serving.prediction.predictor import Predictor
from tests.worlds.trained import MODEL, Sandbox, ask


def scoring_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("scoring")}


def test_an_invalid_row_leaves_no_scoring_thread(place: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    before = scoring_threads()
    assert len(place.project.predict(MODEL, ask(2))) == 2
    assert scoring_threads() == before
    closed: list[Predictor] = []
    real = Predictor.close

    async def close(predictor: Predictor) -> None:
        closed.append(predictor)
        await real(predictor)

    monkeypatch.setattr(Predictor, "close", close)
    with pytest.raises(RequestError):
        place.project.predict(MODEL, [{"card_id": "x"}])
    assert len(closed) == 1
    assert scoring_threads() == before
