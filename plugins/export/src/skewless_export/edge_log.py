"""Reads the predictions that an exported model has logged on a device, as JSON lines.

A line is ``{"inputs": [...], "margins": [...]}``; other keys are not read. ``null`` is NaN. Numbers have all digits of
a double (17, or as Python and JavaScript write them), or are texts such as ``"0x1.8p+0"`` (``%a`` of C) or ``"-inf"``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from skewless.contract.errors import SourceError
from skewless.infra.models.runtimes.port import Matrix


def read_edge_log(path: Path, n_inputs: int, n_outputs: int) -> tuple[Matrix, Matrix]:
    """Return the inputs, ``(n, n_inputs)``, and the margins, ``(n, n_outputs)``, of a log; float64.

    Raises:
        SourceError: the file cannot be read, has no prediction, or a line is not one of this model.
    """
    thing = f"prediction log {path}"
    rows: list[list[float]] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    rows.append(_numbers(line, n_inputs, n_outputs))
                except (ValueError, KeyError, TypeError) as error:
                    problem = "has a line that is not a prediction of this model"
                    fix = f'write lines {{"inputs": [...], "margins": [...]}} of {n_inputs} and {n_outputs} numbers'
                    raise SourceError(thing, problem, value=f"line {number}", fix=fix) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(thing, f"cannot be read: {error}", fix="name a file of JSON lines") from error
    if not rows:
        raise SourceError(thing, "has no prediction", fix="name another file")
    numbers = np.array(rows, dtype=np.float64)
    return np.ascontiguousarray(numbers[:, :n_inputs]), np.ascontiguousarray(numbers[:, n_inputs:])


def _numbers(line: str, n_inputs: int, n_outputs: int) -> list[float]:
    content = json.loads(line)
    inputs, margins = ([_number(value) for value in content[key]] for key in ("inputs", "margins"))
    if (len(inputs), len(margins)) != (n_inputs, n_outputs):
        raise ValueError(line)
    return inputs + margins


def _number(value: object) -> float:
    """Return the double of a JSON value.

    >>> _number(None), _number(3), _number("0x1.8p+0"), _number("-inf")
    (nan, 3.0, 1.5, -inf)
    """
    if value is None:
        return math.nan
    if isinstance(value, str):
        return float.fromhex(value) if "x" in value.lower() else float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise TypeError(value)
