"""Converters of tree models: to compare one more, add a function to ``CONVERTERS`` and its package to the lock file.

A converter gets the library's name, the folder with its model file, rows, and whether it is a classifier. It returns
which of the library's numbers it gives, ``raw scores`` or ``predictions``, and these, one a row.
"""

from __future__ import annotations

import ctypes
import importlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Converter = Callable[[str, Path, Matrix, bool], tuple[str, Any]]
RAW, PREDICTIONS = "raw scores", "predictions"


def _estimator(algorithm: str, folder: Path, is_classifier: bool) -> Any:  # noqa: ANN401, FBT001 - the library's
    """Return the model as the library's class for scikit-learn, which some converters want."""
    if algorithm == "lightgbm":
        import lightgbm  # noqa: PLC0415 - only in the environment of the converters

        estimator = lightgbm.LGBMClassifier() if is_classifier else lightgbm.LGBMRegressor()
        estimator._Booster = lightgbm.Booster(model_file=str(folder / "model.txt"))  # noqa: SLF001 - it has no other way
        estimator.fitted_ = True
        estimator._n_classes = 2  # noqa: SLF001 - as above
        return estimator
    import xgboost  # noqa: PLC0415 - as above

    estimator = (xgboost.XGBClassifier if is_classifier else xgboost.XGBRegressor)(base_score=0.5)
    estimator.load_model(str(folder / "model.json"))
    estimator.set_params(base_score=0.5)  # loading makes it a list, which m2cgen does not understand
    return estimator


def _onnxmltools(algorithm: str, folder: Path, rows: Matrix, is_classifier: bool) -> tuple[str, Any]:  # noqa: FBT001
    onnxmltools, onnxruntime = map(importlib.import_module, ("onnxmltools", "onnxruntime"))
    types = importlib.import_module("onnxmltools.convert.common.data_types")

    inputs = [("x", types.FloatTensorType([None, rows.shape[1]]))]
    estimator = _estimator(algorithm, folder, is_classifier)
    if algorithm == "lightgbm":
        model = onnxmltools.convert_lightgbm(estimator.booster_, initial_types=inputs, zipmap=False)
    else:
        model = onnxmltools.convert_xgboost(estimator, initial_types=inputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"x": _single(rows)})
    return PREDICTIONS, outputs[1][:, 1] if is_classifier else outputs[0][:, 0]


def _treelite(algorithm: str, folder: Path, rows: Matrix, is_classifier: bool) -> tuple[str, Any]:  # noqa: ARG001, FBT001
    treelite = importlib.import_module("treelite")

    if algorithm == "lightgbm":
        model = treelite.frontend.load_lightgbm_model(folder / "model.txt")
    else:
        model = treelite.frontend.load_xgboost_model(folder / "model.json")
    inputs = rows if algorithm == "lightgbm" else _single(rows)
    return RAW, treelite.gtil.predict(model, inputs, nthread=1, pred_margin=True)


def _m2cgen(algorithm: str, folder: Path, rows: Matrix, is_classifier: bool) -> tuple[str, Any]:  # noqa: FBT001
    m2cgen = importlib.import_module("m2cgen")

    sys.setrecursionlimit(100_000)
    source = m2cgen.export_to_c(_estimator(algorithm, folder, is_classifier))
    (folder / "m2cgen.c").write_text(source)
    library = folder / "m2cgen.so"
    command = ["cc", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-o", str(library), "m2cgen.c", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    score = ctypes.CDLL(str(library)).score
    score.restype = None if is_classifier else ctypes.c_double
    result, output = [], (ctypes.c_double * 2)()
    for row in rows:
        numbers = (ctypes.c_double * len(row))(*row)
        if is_classifier:
            score(numbers, output)
            result.append(output[1])
        else:
            result.append(score(numbers))
    return PREDICTIONS, result


def _daal4py(algorithm: str, folder: Path, rows: Matrix, is_classifier: bool) -> tuple[str, Any]:  # noqa: FBT001
    daal4py = importlib.import_module("daal4py")

    estimator = _estimator(algorithm, folder, is_classifier)
    booster = estimator.booster_ if algorithm == "lightgbm" else estimator.get_booster()
    model = daal4py.mb.convert_model(booster)
    return PREDICTIONS, model.predict_proba(rows)[:, 1] if is_classifier else model.predict(rows)


def _single(rows: Matrix) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return rows.astype(np.float32)


CONVERTERS: Mapping[str, Converter] = {
    "onnxmltools 1.16.0, ONNX Runtime": _onnxmltools,
    "treelite 4.8.1, gtil": _treelite,
    "m2cgen 0.10.0, C": _m2cgen,
    "daal4py 2026.2.0": _daal4py,
}
