"""Replies as objects: what is new is kept in ``raw``, what was not asked for is empty."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from skewless.client import ReplyView
from skewless.client.replies import read_models, read_prediction, read_reply

ITEM: dict[str, Any] = {"id": "a-1", "score": 0.25}
DATA: dict[str, Any] = {
    "model": "m",
    "version": "000001",
    "t": "2026-01-15T12:00:00.179000+00:00",
    "t_us": 1_768_478_400_179_000,
    "log": "required",
    "degraded": True,
    "predictions": [ITEM, {**ITEM, "id": "a-2", "score": 0.5}],
    "news": 1,
}


def test_a_reply_has_its_predictions_in_order() -> None:
    reply = read_reply(DATA)
    assert (reply.model, reply.version, reply.log, reply.degraded) == ("m", "000001", "required", True)
    assert reply.t == datetime(2026, 1, 15, 12, 0, 0, 179_000, tzinfo=UTC)
    assert (reply.scores, [item.id for item in reply], len(reply)) == ([0.25, 0.5], ["a-1", "a-2"], 2)
    assert reply.raw["news"] == 1


def test_what_was_not_asked_for_is_empty() -> None:
    item = read_prediction(ITEM)
    assert (item.scores, item.decision, item.features, item.views) == ((), None, {}, {})
    assert (item.contributions, item.leaves) == ({}, ())


def test_what_was_asked_for_is_there() -> None:
    item = read_prediction(
        {
            **ITEM,
            "decision": "review",
            "features": {"f": None, "g": 1.0},
            "views": {"v": {"status": "PRESENT", "age_s": 1.5, "stale": True, "news": 1}, "w": {"status": "NOT_FOUND"}},
            "contributions": {"f": 0.1, "bias": -2.0},
            "leaves": [3, 0],
        }
    )
    assert (item.decision, item.features["f"], item.contributions["bias"]) == ("review", None, -2.0)
    assert item.leaves == (3, 0)
    assert item.views == {
        "v": ReplyView(status="PRESENT", age_s=1.5, stale=True),
        "w": ReplyView(status="NOT_FOUND", age_s=None, stale=False),
    }


def test_several_outputs() -> None:
    item = read_prediction({"id": "a", "score": 0.7, "scores": [0.1, 0.2, 0.7], "contributions": {"f": [0.1, 0, 2]}})
    assert (item.score, item.scores, item.contributions) == (0.7, (0.1, 0.2, 0.7), {"f": [0.1, 0, 2]})


def test_a_score_that_json_cannot_write_is_nan() -> None:
    item = read_prediction({"id": "a", "score": None, "scores": [None, 0.5]})
    assert math.isnan(item.score)
    assert math.isnan(item.scores[0])


def test_replies_stand_still() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        read_reply(DATA).model = "n"  # type: ignore[misc]


def test_models() -> None:
    listed = read_models({"models": [{"model": "m", "version": "2", "features": ["f"], "task": "binary"}]})
    assert [(model.name, model.version, model.features, model.raw["task"]) for model in listed] == [
        ("m", "2", ("f",), "binary")
    ]
    assert (len(listed), listed.refused) == (1, {})
