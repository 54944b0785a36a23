"""No body of a prediction request leads to anything but its fields or a RequestError."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.errors import RequestError
from skewless.serving.http.predict_route import parse_body, read_options
from skewless.serving.prediction.routing import Options

NOW = 1_768_478_400_123_456
NAMES = [
    "model",
    "version",
    "rows",
    "features",
    "contributions",
    "leaves",
    "as_of",
    "max_feature_age_s",
    "timeout_us",
    "other",
]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
ODD = VALUES | st.integers() | st.floats()
KINDS = {
    "model": str,
    "version": str,
    "rows": list,
    "features": bool,
    "contributions": bool,
    "leaves": bool,
    "as_of": int | str,
    "max_feature_age_s": int | float,
    "timeout_us": int,
}


def taken(body: bytes) -> dict[str, Any] | None:
    try:
        return parse_body(body)
    except RequestError:
        return None


@given(st.binary(max_size=60))
def test_any_bytes(body: bytes) -> None:
    assert taken(body) is None or b"rows" in body


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_any_fields(fields: dict[str, Any]) -> None:
    """The oracle knows the names and their types."""
    found = taken(json.dumps(fields).encode())
    right = isinstance(fields.get("rows"), list) and all(
        name in KINDS and (value is None or _is(value, KINDS[name])) for name, value in fields.items()
    )
    assert (found == fields) if right else found is None


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES[4:8], ODD)), st.sampled_from([0.0, 1.5]))
def test_any_options(values: dict[str, Any], deadline_s: float) -> None:
    try:
        options = read_options(values, now_us=NOW, loop_s=7.0, deadline_s=deadline_s)
    except RequestError:
        assert values
        return
    assert isinstance(options, Options)
    assert options.as_of is None or (options.as_of <= NOW and options.as_of % 1_000 == 0)
    assert options.max_age_us is None or options.max_age_us >= 1
    assert (options.deadline is None) == (not deadline_s and values.get("timeout_us") is None)
    assert options.deadline is None or options.deadline > 7.0 or values.get("timeout_us") is not None
    assert options.extras == tuple(name for name in ("contributions", "leaves") if values.get(name))


def _is(value: object, kind: Any) -> bool:  # noqa: ANN401 - a type or a union of some
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
