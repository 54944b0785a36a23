"""Floats in JSON, which has neither NaN nor infinities: as in the JSON mapping of Protocol Buffers, but for NaN."""

from __future__ import annotations

import math


def json_number(value: float) -> float | str | None:
    """Return a float as JSON can hold it: NaN, which is a missing value here, as null, infinities as texts.

    >>> [json_number(float(text)) for text in ("1.5", "nan", "inf", "-inf")]
    [1.5, None, 'Infinity', '-Infinity']
    """
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return None
    return "Infinity" if value > 0 else "-Infinity"
