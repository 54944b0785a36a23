"""Between Feast, which calls a transform with lists, and the transform, which takes and returns numpy arrays.

The text of this module follows that of the transform into Feast's registry, so that every process that loads the
registry makes the same call, with or without skewless. Hence it imports numpy and the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def arrays_for(
    function: Callable[[Any], Any], view: str, inputs: Mapping[str, tuple[str, str]], outputs: Mapping[str, str]
) -> Callable[[Mapping[str, Sequence[Any]]], dict[str, list[Any]]]:
    """Return a transform as Feast calls it: lists in, lists out.

    Args:
        inputs: per input, the declared type, and the type in which the transform sees it.
        outputs: per output, the declared type.
    """

    def call(given: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        try:
            arrays = {name: _array(name, given[name], *types) for name, types in inputs.items()}
            found = function(arrays)
            return {name: _list(np.asarray(found[name]), dtype) for name, dtype in outputs.items()}
        except Exception as error:  # the function is a user's, and may raise anything
            raise ValueError(f"on-demand feature view {view!r}: {type(error).__name__}: {error}") from error

    # Not the function's own name, by which it may call itself.
    call.__name__ = f"{function.__name__}_of_lists"
    return call


def _array(name: str, values: Sequence[Any], declared: str, seen: str) -> npt.NDArray[Any]:
    """Return an input as the transform sees it: text as objects, null as NaN, times in microseconds since 1970."""
    if seen in {"string", "bytes"}:
        objects = np.empty(len(values), dtype=object)
        objects[:] = list(values)
        return objects
    plain = [_number(value) for value in values]
    if seen != "float64" and any(value is None or value != value for value in plain):  # noqa: PLR0124 - NaN is null
        raise ValueError(f"field {name!r} is null; only float and text fields of a request may be")
    if seen == "float64":
        numbers = np.array([np.nan if value is None else value for value in plain], dtype=np.float64)
        # Feast hands on the float64 that a request has; the declared float32 is what the transform sees elsewhere.
        return numbers.astype(np.float32).astype(np.float64) if declared == "float32" else numbers
    return np.array(plain, dtype=np.bool_ if seen == "bool" else np.int64)


def _number(value: Any) -> Any:  # noqa: ANN401 - whatever Feast hands on
    if isinstance(value, datetime):
        moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(microseconds=1)
    return value


def _list(values: npt.NDArray[Any], declared: str) -> list[Any]:
    """Return an output as Feast stores it: NaN is null in all but floats."""
    if values.dtype == object or declared in {"string", "bytes"}:
        return list(values.tolist())
    if declared in {"float32", "float64"}:
        return list(values.astype(declared)) if declared == "float32" else list(values.astype(np.float64).tolist())
    return [None if value != value else _whole(value, declared) for value in values.tolist()]  # noqa: PLR0124 - NaN


def _whole(value: Any, declared: str) -> Any:  # noqa: ANN401 - a number of any type
    if declared == "timestamp":
        return _EPOCH + timedelta(microseconds=int(value))
    if declared == "bool":
        return bool(value)
    return np.int32(value) if declared == "int32" else int(value)
