"""Parse feedback requests into outcomes of predictions; each error names the row and the field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import AccessError, RequestError
from skewless.contract.keys import parse_key
from skewless.contract.plan import FeaturePlan
from skewless.contract.request import parse_field

PlanOf = Callable[[str], FeaturePlan]
"""Returns the part of the plan that a model needs; raises RequestError for an unknown model."""

_SHAPES = (
    'send {"prediction_id": ..., "label": ...} or {"model": ..., "keys": {...}, "event_time": ..., "label": ...}, '
    "and value and known_at if they are known"
)
_CLOCK_SKEW_US = 60_000_000  # tolerated difference between the clocks of caller and server


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one prediction; a later outcome of the same prediction replaces it completely.

    Args:
        prediction_id: the prediction; None: identify it by ``keys`` and ``event_time``.
        model: the model; None: that of the prediction. With an id, the outcome counts only if both are the same.
        keys: join keys, and request fields if any, as text in order of their names; None is null.
        event_time: event time of the prediction, UTC microseconds.
        label: the true label; None: unknown, or an earlier label is retracted.
        value: business value, in any unit; None: unknown.
        known_at: when the outcome became known, UTC microseconds.
    """

    prediction_id: str | None = None
    model: str | None = None
    keys: tuple[tuple[str, str | None], ...] = ()
    event_time: int | None = None
    label: float | None
    value: float | None = None
    known_at: int

    @property
    def by(self) -> str:
        """Return how the outcome identifies its prediction: ``id`` or ``entity``."""
        return "entity" if self.prediction_id is None else "id"

    @property
    def kind(self) -> str:
        """Return the kind of outcome: ``label``, ``value`` without a label, or ``retraction``."""
        if self.label is not None:
            return "label"
        return "retraction" if self.value is None else "value"


_NAMES = frozenset(field.name for field in fields(Outcome))
_BY_ID = _NAMES - {"keys", "event_time"}
_BY_ENTITY = _NAMES - {"prediction_id"}


def parse_feedback(rows: Sequence[object], plan_of: PlanOf, now_us: int, max_rows: int) -> list[Outcome]:
    """Return the outcomes of a request; one invalid row rejects the whole request.

    Args:
        rows: JSON values.
        plan_of: returns the plan with keys and request fields of a model.
        now_us: the current time, the default of ``known_at``.
        max_rows: most rows of one request.

    Raises:
        RequestError: the request has no rows or too many, or names the first invalid row.
        AccessError: raised by ``plan_of``.
    """
    if not rows:
        raise RequestError("field 'feedback'", "is empty", fix="send at least one row")
    if len(rows) > max_rows:
        raise RequestError(
            "field 'feedback'", f"has more than {max_rows} rows", value=len(rows), fix="send several requests"
        )
    return [_parse_row(i, row, plan_of, now_us) for i, row in enumerate(rows)]


def _parse_row(i: int, row: object, plan_of: PlanOf, now_us: int) -> Outcome:
    try:
        return _parse_outcome(row, plan_of, now_us)
    except AccessError:
        raise
    except RequestError as error:
        raise RequestError(f"feedback {i} {error.thing}", error.problem, value=error.value, fix=error.fix) from error


def _parse_outcome(row: object, plan_of: PlanOf, now_us: int) -> Outcome:
    if not isinstance(row, dict):
        raise RequestError("row", "is not an object", value=row, fix=_SHAPES)
    has_id = row.get("prediction_id") is not None
    _check_names(row, _BY_ID if has_id else _BY_ENTITY)
    known_at = _parse_time("known_at", row["known_at"]) if row.get("known_at") is not None else now_us
    if known_at > now_us + _CLOCK_SKEW_US:
        raise RequestError(
            "field 'known_at'", "is in the future", value=row["known_at"], fix="send the time at which it became known"
        )
    label, value = _parse_number("label", row["label"]), _parse_number("value", row.get("value"))
    if has_id:
        prediction_id = _parse_text("prediction_id", row["prediction_id"])
        named = None
        if row.get("model") is not None:
            named = _parse_text("model", row["model"])
            plan_of(named)
        return Outcome(prediction_id=prediction_id, model=named, label=label, value=value, known_at=known_at)
    model = _parse_text("model", row["model"])
    return Outcome(
        model=model,
        keys=_parse_keys(plan_of(model), row["keys"]),
        event_time=_parse_time("event_time", row["event_time"]),
        label=label,
        value=value,
        known_at=known_at,
    )


def _check_names(row: Mapping[str, Any], names: frozenset[str]) -> None:
    for name in row:
        if name not in names and row[name] is not None:
            raise RequestError("row", "has an unknown field", value=name, fix=_SHAPES)
    for name in sorted(names - {"value", "known_at"} - ({"model"} if names is _BY_ID else set())):
        if name not in row:
            raise RequestError("row", f"has no field {name!r}", fix=_SHAPES)


def _parse_keys(plan: FeaturePlan, values: object) -> tuple[tuple[str, str | None], ...]:
    """Return keys and fields as text, so that ``7`` and ``"7"`` identify the same entity."""
    if not isinstance(values, dict):
        raise RequestError(
            "field 'keys'", "is not an object", value=values, fix="send the model's keys with their values"
        )
    keys = {column.name: column for column in plan.join_keys}
    fields = {column.name: column for column in plan.request}
    for name in sorted(keys.keys() - values.keys()):
        raise RequestError("field 'keys'", f"has no key {name!r}", fix=f"send {', '.join(sorted(keys))}")
    for name in sorted(values.keys() - keys.keys() - fields.keys()):
        known = ", ".join(sorted(keys | fields))
        raise RequestError("field 'keys'", "has an unknown name", value=name, fix=f"use only {known}")
    return tuple((name, _key_text(keys.get(name), fields.get(name), values[name])) for name in sorted(values))


def _key_text(key: Column | None, field: Column | None, value: object) -> str | None:
    if value is None:
        return None
    parsed = parse_key(key, value) if key else parse_field(cast("Column", field), value)
    if isinstance(parsed, bool):
        return str(parsed).lower()
    return parsed.decode() if isinstance(parsed, bytes) else str(parsed)


def _parse_text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise RequestError(f"field {name!r}", "is not a string", value=value, fix=_SHAPES)
    return value


def _parse_number(name: str, value: object) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise RequestError(f"field {name!r}", "is not a number", value=value, fix="send a number, or null")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RequestError(f"field {name!r}", "is not finite", value=value, fix="send a number, or null")
    return number


def _parse_time(name: str, value: object) -> int:
    return cast("int", parse_field(Column(name=name, dtype=DType.TIMESTAMP), value))
