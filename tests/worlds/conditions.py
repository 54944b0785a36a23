"""Conditions of decision streams, in a module that imports numpy only."""

import numpy as np
import numpy.typing as npt

Event = dict[str, npt.NDArray[np.float64]]


def is_large(event: Event) -> npt.NDArray[np.bool_]:
    return np.asarray(event["x"] > 10)


def depends_on_other_rows(event: Event) -> npt.NDArray[np.bool_]:
    with np.errstate(all="ignore"):
        return np.asarray(event["x"] > event["x"][0])


def returns_numbers(event: Event) -> npt.NDArray[np.float64]:
    with np.errstate(all="ignore"):
        return np.asarray(event["x"] * 2)
