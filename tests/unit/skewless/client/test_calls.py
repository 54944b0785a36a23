"""What is sent: the options that were asked for, and no others."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import orjson
import pytest

from skewless.client.calls import ApiCall, events_call, model_call, predict_call
from skewless.contract.errors import RequestError


def sent(call: ApiCall[Any], left_s: float = 9.0) -> Any:  # noqa: ANN401 - JSON
    """Return what goes to the server."""
    return orjson.loads(call.body(left_s) or b"null")


@pytest.mark.parametrize(
    ("options", "wire"),
    [
        ({}, {}),
        ({"model": None, "features": False, "contributions": False, "as_of": None}, {}),
        (
            {"model": "m", "features": True, "contributions": True, "leaves": True},
            {"model": "m", "features": True, "contributions": True, "leaves": True},
        ),
        ({"as_of": 0, "max_feature_age_s": 0.5}, {"as_of": 0, "max_feature_age_s": 0.5}),
        ({"as_of": datetime(2026, 1, 2, tzinfo=UTC)}, {"as_of": "2026-01-02T00:00:00+00:00"}),
        ({"timeout_s": 2.0}, {"timeout_us": 8_100_000}),
    ],
)
def test_only_what_was_asked_for_is_sent(options: dict[str, Any], wire: dict[str, Any]) -> None:
    assert sent(predict_call([{"a": 1}], **options)) == {"rows": [{"a": 1}], **wire}


def test_values_of_numpy_and_times_are_json_and_what_json_lacks_is_null() -> None:
    row = {"a": np.int64(2**62), "b": np.float64(0.1), "c": math.nan, "d": datetime(2026, 1, 2, tzinfo=UTC), "e": -0.0}
    wire = {"a": 2**62, "b": 0.1, "c": None, "d": "2026-01-02T00:00:00+00:00", "e": -0.0}
    assert sent(predict_call([row]))["rows"] == [wire]


@pytest.mark.parametrize("value", [object(), 2**70, {1: 2}, b"x"])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(RequestError, match="request to /predict: cannot be written as JSON"):
        predict_call([{"a": value}]).body(1.0)


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(RequestError, match=r"has no such option .got 'thresholds'"):
        predict_call([{}], thresholds=1)  # type: ignore[call-arg]
    with pytest.raises(RequestError, match=r"'timeout_s'.*above zero"):
        predict_call([{}], timeout_s=0.0)


@pytest.mark.parametrize(
    ("events", "event_id", "safe"),
    [
        ([{"id": 1}, {"id": 0}], "id", True),
        ([{"id": 1}, {"id": 0}], None, False),
        ([{"id": 1}, {"id": None}], "id", False),
        ([{"id": 1}, {}], "id", False),
    ],
)
def test_events_are_safe_where_each_has_its_id(
    events: list[dict[str, Any]], event_id: str | None, *, safe: bool
) -> None:
    assert events_call("s", events, event_id).is_repeatable is safe


def test_names_are_quoted() -> None:
    assert events_call("a/b?", [], None).path == "/events/a%2Fb%3F"
    assert events_call("s", [], None, "required").path == "/events/s?log=required"
    assert model_call("../health").path == "/models/..%2Fhealth"
