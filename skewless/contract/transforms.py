"""Run request-time transforms: training and serving run the same function with the same code (SEMANTICS 5)."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from skewless.contract.columns import PREDICTION, REQUEST, FeatureRef, Transform
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.plan import FeaturePlan
from skewless.contract.windows.view import WindowView

Columns = Mapping[str, npt.NDArray[Any]]

_EXTREME_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e300, -1e300, 5e-324, np.nan, np.inf, -np.inf, 2.0**53)
_EXTREME_INTS = (0, 1, -1, 59, 1440, 2359, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 1_700_000_000_000_000)
_EXTREME_TEXTS = (None, "", "a", "Zürich", "日本")
_SAMPLE_ROWS = 257


class TransformRunner:
    """Runs a transform from its source text, which may import numpy and nothing else.

    Args:
        dtypes: the type of each input as the transform receives it.
    """

    def __init__(self, transform: Transform, dtypes: Mapping[str, DType]) -> None:
        self.transform = transform
        self._dtypes = dtypes
        self._function = _load_function(transform)

    @classmethod
    def from_plan(cls, plan: FeaturePlan, transform: Transform) -> TransformRunner:
        """Return a runner for a request-time transform of a plan."""
        return cls(transform, {ref.name: input_dtype(plan, ref) for ref in transform.inputs})

    @classmethod
    def from_view(cls, view: WindowView, transform: Transform) -> TransformRunner:
        """Return a runner for the transform of a windowed view: numbers are float64 (null: NaN), text is objects."""
        dtypes = {ref.name: view.dtype(ref.name) for ref in transform.inputs}
        return cls(transform, {name: each if each.is_text else DType.FLOAT64 for name, each in dtypes.items()})

    def run(self, inputs: Columns) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs for n rows, keyed by name, each of shape ``(n,)``.

        Args:
            inputs: contiguous one-dimensional arrays by name: float64 (null: NaN) for numbers of
                views and float fields, int64 for integer and time fields, objects for text.

        Raises:
            DefinitionError: an output is missing or has another shape.
        """
        n = len(next(iter(inputs.values())))
        # numpy warns of 1 / 0 or raises, as the process has set it; the result must not depend on the process.
        with np.errstate(all="ignore"):
            results = self._function({name: np.ascontiguousarray(array) for name, array in inputs.items()})
        return {column.name: self._output(results, column.name, n) for column in self.transform.outputs}

    def _output(self, results: Columns, name: str, n: int) -> npt.NDArray[Any]:
        array = np.asarray(results[name]) if name in results else None
        if array is not None and array.dtype.kind in "US":
            array = array.astype(object)
        if array is None or array.shape != (n,):
            raise DefinitionError(
                f"transform {self.transform.name!r} output {name!r}",
                f"is not an array of shape ({n},)",
                value=None if array is None else array.shape,
                fix="return one value per row, in a dict keyed by the declared output names",
            )
        return array

    def check(self, seed: int = 7) -> None:
        """Check that each row's result depends on that row alone, bit for bit (SEMANTICS 5.1).

        Raises:
            DefinitionError: one row gives other bits alone, permuted or in another memory layout.
        """
        rng = np.random.default_rng(seed)
        rows = {name: _sample_column(dtype, rng) for name, dtype in self._dtypes.items()}
        expected = self._try_run(rows)
        order = np.random.default_rng(seed + 1).permutation(_SAMPLE_ROWS)
        self._compare(expected, order, self._try_run({k: v[order] for k, v in rows.items()}), "permuted")
        # A strided array makes numpy use other loops, which may round differently.
        strided = {k: np.repeat(v, 2)[::2] for k, v in rows.items()}
        self._compare(expected, np.arange(_SAMPLE_ROWS), self._try_run(strided), "in another memory layout")
        for i in range(_SAMPLE_ROWS):
            single = {k: v[i : i + 1] for k, v in rows.items()}
            self._compare(expected, np.array([i]), self._try_run(single), "alone")

    def _try_run(self, rows: Columns) -> dict[str, npt.NDArray[Any]]:
        try:
            return self.run(rows)
        except DefinitionError:
            raise
        except Exception as error:  # a user's function may raise any exception
            raise DefinitionError(
                f"transform {self.transform.name!r}",
                f"fails on random and extreme rows with {type(error).__name__}",
                value=str(error),
                fix="make it work for every value of its inputs, NaN and infinities too",
            ) from error

    def _compare(self, expected: Columns, rows: npt.NDArray[np.intp], actual: Columns, how: str) -> None:
        for name, array in expected.items():
            if not has_same_bits(array[rows], actual[name]):
                raise DefinitionError(
                    f"transform {self.transform.name!r} output {name!r}",
                    f"depends on other rows: the bits differ when a row is computed {how}",
                    fix="use element-wise numpy functions only: no matmul, sum, sort or other work across rows",
                )


def input_dtype(plan: FeaturePlan, ref: FeatureRef) -> DType:
    """Return the type of an input as a transform receives it: numbers of views as float64 (null: NaN)."""
    dtype = plan.dtype(ref)
    if dtype.is_text:
        return dtype
    if ref.group not in {REQUEST, PREDICTION} or dtype in {DType.FLOAT32, DType.FLOAT64}:
        return DType.FLOAT64
    return DType.BOOL if dtype is DType.BOOL else DType.INT64


def has_same_bits(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> bool:
    """Say whether two arrays have the same type, shape and bytes; objects compare by value.

    >>> has_same_bits(np.array([0.0]), np.array([-0.0]))
    False
    """
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return list(left) == list(right) if left.dtype == object else left.tobytes() == right.tobytes()


def _sample_column(dtype: DType, rng: np.random.Generator) -> npt.NDArray[Any]:
    if dtype.is_text:
        texts = np.array([*_EXTREME_TEXTS], dtype=object)
        if dtype is DType.BYTES:
            texts = np.array([None if t is None else t.encode() for t in texts], dtype=object)
        return rng.choice(texts, _SAMPLE_ROWS)
    if dtype is DType.BOOL:
        return rng.integers(0, 2, _SAMPLE_ROWS).astype(np.bool_)
    if dtype is DType.FLOAT64:
        floats = rng.normal(0, 1000, _SAMPLE_ROWS)
        floats[: len(_EXTREME_FLOATS)] = _EXTREME_FLOATS
        return rng.permutation(floats)
    integers = rng.integers(-(2**62), 2**62, _SAMPLE_ROWS)
    # Half of the integers are small, like real counts and times of day.
    integers[::2] = rng.integers(0, 2400, len(integers[::2]))
    integers[: len(_EXTREME_INTS)] = _EXTREME_INTS
    return rng.permutation(integers)


def _load_function(transform: Transform) -> Any:  # noqa: ANN401 - a user's function has no type of ours
    _check_imports(transform)
    module = ModuleType(f"transform_{transform.name}")
    exec(compile(transform.source, f"<transform {transform.name}>", "exec"), module.__dict__)  # noqa: S102 - hash-checked source of the package
    function = module.__dict__.get(transform.function)
    if not callable(function):
        raise DefinitionError(
            f"transform {transform.name!r}",
            "has no such function in its module",
            value=transform.function,
            fix="define it at the top level of the transform module",
        )
    return function


def _check_imports(transform: Transform) -> None:
    for node in ast.walk(ast.parse(transform.source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "."]
        for name in names:
            if name.split(".")[0] not in {"numpy", "__future__"}:
                raise DefinitionError(
                    f"transform {transform.name!r}",
                    "imports more than numpy",
                    value=name,
                    fix="move the function to a module of its own that imports numpy only",
                )
