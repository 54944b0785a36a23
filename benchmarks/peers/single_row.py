"""LightGBM's single-row fast call by ctypes, with nothing around it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

_FLOAT64, _NORMAL, _ALL_TREES = 1, 0, -1


def single_row_scorer(model_file: str, vector: bytearray) -> Callable[[], float]:
    """Return a function that scores the float64 numbers that lie in a buffer when it is called."""
    library = _library()
    booster, fast, count = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
    _check(library.LGBM_BoosterCreateFromModelfile(model_file.encode(), ctypes.byref(count), ctypes.byref(booster)))
    width = len(vector) // 8
    _check(
        library.LGBM_BoosterPredictForMatSingleRowFastInit(
            booster, _NORMAL, 0, _ALL_TREES, _FLOAT64, width, b"num_threads=1", ctypes.byref(fast)
        )
    )
    place = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(vector)))
    score, length = ctypes.c_double(), ctypes.c_int64()
    arguments = fast, place, ctypes.byref(length), ctypes.byref(score)
    call = library.LGBM_BoosterPredictForMatSingleRowFast

    def scored() -> float:
        _check(call(*arguments))
        return score.value

    return scored


def _library() -> ctypes.CDLL:
    spec = find_spec("lightgbm")
    assert spec is not None
    assert spec.origin is not None
    return ctypes.CDLL(str(next(Path(spec.origin).parent.rglob("lib_lightgbm.*"))))


def _check(status: int) -> None:
    if status:
        raise RuntimeError("LightGBM refused a call")
