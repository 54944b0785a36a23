"""What came of predictions, as callers report it: checked row by row, each error naming row and field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

from skewless.contract.clock import parse_time
from skewless.contract.columns import Column
from skewless.contract.errors import RequestError
from skewless.contract.keys import parse_key
from skewless.contract.plan import FeaturePlan
from skewless.contract.request import parse_field

PlanOf = Callable[[str], FeaturePlan]
"""Returns the part of the plan that a model needs; raises RequestError for a model that is unknown."""

_SHAPES = (
    'send {"prediction_id": ..., "label": ...} or {"model": ..., "keys": {...}, "event_time": ..., "label": ...}, '
    "with value and known_at where they are known"
)
_TIME = "send an ISO 8601 time with a zone, or microseconds since the epoch"
_AHEAD_US = 60_000_000  # clocks of two machines


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one prediction; a later one about the same thing takes its place as a whole.

    Args:
        prediction_id: which prediction; None: the one about ``keys`` at ``event_time``.
        model: the model that was asked, of an outcome without a prediction id.
        keys: join keys, and request fields if any, as texts in order of their names; None in it is null.
        event_time: the moment that the prediction was about, UTC microseconds.
        label: what was to be predicted; None: what was said before is taken back, or nobody knows.
        value: what it was worth, in the unit of the business; None: nobody knows.
        known_at: when it became known, UTC microseconds.
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
        """Return how the prediction is named: ``id`` or ``entity``."""
        return "entity" if self.prediction_id is None else "id"

    @property
    def kind(self) -> str:
        """Return what is said: ``label``, ``value`` alone, or ``retraction``."""
        if self.label is not None:
            return "label"
        return "retraction" if self.value is None else "value"


_NAMES = frozenset(field.name for field in fields(Outcome))
_BY_ID = _NAMES - {"model", "keys", "event_time"}
_BY_ENTITY = _NAMES - {"prediction_id"}


def parse_feedback(rows: Sequence[object], plan_of: PlanOf, now_us: int, most: int) -> list[Outcome]:
    """Return the outcomes of a request; one that is wrong refuses them all.

    Args:
        rows: JSON values.
        plan_of: finds the keys and request fields of a model.
        now_us: the clock, which stands for ``known_at`` where it is missing.
        most: rows that are taken at once.

    Raises:
        RequestError: no row, too many, or the first one that is wrong.
    """
    if not rows:
        raise RequestError("field 'feedback'", "is empty", fix="send at least one row")
    if len(rows) > most:
        raise RequestError("field 'feedback'", f"has more than {most} rows", value=len(rows), fix="send several")
    return [_at(i, row, plan_of, now_us) for i, row in enumerate(rows)]


def _at(i: int, row: object, plan_of: PlanOf, now_us: int) -> Outcome:
    try:
        return _outcome(row, plan_of, now_us)
    except RequestError as error:
        raise RequestError(f"feedback {i} {error.thing}", error.problem, value=error.value, fix=error.fix) from error


def _outcome(row: object, plan_of: PlanOf, now_us: int) -> Outcome:
    if not isinstance(row, dict):
        raise RequestError("row", "is not an object", value=row, fix=_SHAPES)
    named = row.get("prediction_id") is not None
    _check_names(row, _BY_ID if named else _BY_ENTITY)
    known = _moment("known_at", row["known_at"]) if row.get("known_at") is not None else now_us
    if known > now_us + _AHEAD_US:
        raise RequestError(
            "field 'known_at'", "is in the future", value=row["known_at"], fix="send the time it was known"
        )
    said = _FeedbackLine(_number("label", row["label"]), _number("value", row.get("value")), known)
    if named:
        return Outcome(
            prediction_id=_text("prediction_id", row["prediction_id"]),
            label=said.label,
            value=said.value,
            known_at=said.known_at,
        )
    model = _text("model", row["model"])
    return Outcome(
        model=model,
        keys=_keys(plan_of(model), row["keys"]),
        event_time=_moment("event_time", row["event_time"]),
        label=said.label,
        value=said.value,
        known_at=said.known_at,
    )


@dataclass(frozen=True)
class _FeedbackLine:
    label: float | None
    value: float | None
    known_at: int


def _check_names(row: Mapping[str, Any], names: frozenset[str]) -> None:
    for name in row:
        if name not in names and row[name] is not None:
            raise RequestError("row", "has a field that does not belong to it", value=name, fix=_SHAPES)
    for name in sorted(names - {"value", "known_at"}):
        if name not in row:
            raise RequestError("row", f"lacks the field {name!r}", fix=_SHAPES)


def _keys(plan: FeaturePlan, given: object) -> tuple[tuple[str, str | None], ...]:
    """Return keys and fields as texts, so that ``7`` and ``"7"`` name the same entity."""
    if not isinstance(given, dict):
        raise RequestError(
            "field 'keys'", "is not an object", value=given, fix="send the model's keys with their values"
        )
    keys = {column.name: column for column in plan.join_keys}
    fields = {column.name: column for column in plan.request}
    for name in sorted(keys.keys() - given.keys()):
        raise RequestError("field 'keys'", f"lacks the key {name!r}", fix=f"send {', '.join(sorted(keys))}")
    for name in sorted(given.keys() - keys.keys() - fields.keys()):
        known = ", ".join(sorted(keys | fields))
        raise RequestError("field 'keys'", "has an unknown name", value=name, fix=f"use only {known}")
    return tuple((name, _key_text(keys.get(name), fields.get(name), given[name])) for name in sorted(given))


def _key_text(key: Column | None, field: Column | None, value: object) -> str | None:
    if value is None:
        return None
    parsed = parse_key(key, value) if key else parse_field(cast("Column", field), value)
    if isinstance(parsed, bool):
        return str(parsed).lower()
    return parsed.decode() if isinstance(parsed, bytes) else str(parsed)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise RequestError(f"field {name!r}", "is not a text", value=value, fix=_SHAPES)
    return value


def _number(name: str, value: object) -> float | None:
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


def _moment(name: str, value: object) -> int:
    if type(value) is int and abs(value) < 2**63:
        return value
    found = parse_time(value) if isinstance(value, str) else None
    if found is None or not found[1]:
        raise RequestError(f"field {name!r}", "is not a time", value=value, fix=_TIME)
    return found[0]
