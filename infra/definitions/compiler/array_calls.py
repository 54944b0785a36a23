"""Adapt transforms to Feast: Feast passes and expects lists, a transform takes and returns numpy arrays.

`skewless apply` stores the text of this module with each transform in Feast's registry, so that any process that loads
the registry computes the same, with or without skewless. Hence it imports only numpy and the standard library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def wrap_transform(
    function: Callable[[Any], Any], view: str, inputs: Mapping[str, tuple[str, str]], outputs: Mapping[str, str]
) -> Callable[[Mapping[str, Sequence[Any]]], dict[str, list[Any]]]:
    """Return a transform in the form that Feast calls: lists in, lists out.

    Args:
        function: the transform.
        view: name of the on-demand feature view, for errors.
        inputs: per input, the declared type, and the type in which the transform receives it.
        outputs: per output, the declared type.
    """

    def call(lists: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        try:
            arrays = {name: _array(name, lists[name], *types) for name, types in inputs.items()}
            results = function(arrays)
            return {name: _list(np.asarray(results[name]), dtype) for name, dtype in outputs.items()}
        except Exception as error:  # a user's function may raise any exception
            raise ValueError(f"on-demand feature view {view!r}: {type(error).__name__}: {error}") from error

    # Not the name of the function: a recursive function calls itself by that name.
    call.__name__ = f"{function.__name__}_of_lists"
    return call


def _array(name: str, values: Sequence[Any], declared: str, input_type: str) -> npt.NDArray[Any]:
    """Return an input for the transform: text as objects, null as NaN, times in microseconds since 1970."""
    if input_type in {"string", "bytes"}:
        objects = np.empty(len(values), dtype=object)
        objects[:] = list(values)
        return objects
    plain = [_number(value) for value in values]
    if input_type != "float64" and any(value is None or value != value for value in plain):  # noqa: PLR0124 - NaN is null
        raise ValueError(f"field {name!r} is null; only float and text fields of a request may be null")
    if input_type == "float64":
        numbers = np.array([np.nan if value is None else value for value in plain], dtype=np.float64)
        # Feast passes the float64 of the request; skewless passes the value rounded to the declared float32.
        return numbers.astype(np.float32).astype(np.float64) if declared == "float32" else numbers
    return np.array(plain, dtype=np.bool_ if input_type == "bool" else np.int64)


def _number(value: Any) -> Any:  # noqa: ANN401 - any value that Feast passes
    if isinstance(value, datetime):
        time = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
        return (time - _EPOCH) // timedelta(microseconds=1)
    return value


def _list(values: npt.NDArray[Any], declared: str) -> list[Any]:
    """Return an output in the form that Feast stores: NaN is null, except in floats."""
    if values.dtype == object or declared in {"string", "bytes"}:
        return list(values.tolist())
    if declared in {"float32", "float64"}:
        return list(values.astype(declared)) if declared == "float32" else list(values.astype(np.float64).tolist())
    return [None if value != value else _to_scalar(value, declared) for value in values.tolist()]  # noqa: PLR0124 - NaN


def _to_scalar(value: Any, declared: str) -> Any:  # noqa: ANN401 - a number of any type
    if declared == "timestamp":
        return _EPOCH + timedelta(microseconds=int(value))
    if declared == "bool":
        return bool(value)
    return np.int32(value) if declared == "int32" else int(value)
