"""SEMANTICS 5.1: what a request-time transform may be, and what the check of its rows catches."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from skewless.contract.columns import Transform
from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.plan import FeaturePlan
from skewless.contract.transforms import TransformRunner, has_same_bits, input_dtype
from tests.worlds.plans import make_plan, make_transform, make_view, refs

FIELDS = {f"a{i}": DType.FLOAT64 for i in range(8)}
HEAD = "import numpy as np\ncalls = []\ndef f(inputs):\n    X = np.stack([inputs[f'a{i}'] for i in range(8)], axis=1)\n"


def runner(body: str, outputs: dict[str, DType] | None = None) -> TransformRunner:
    transform = make_transform(HEAD + f"    {body}\n", [f"request.{name}" for name in FIELDS], outputs)
    return TransformRunner.from_plan(make_plan(["made.out"], request=FIELDS, transforms=[transform]), transform)


@pytest.mark.parametrize(
    "body",
    [
        "return {'out': np.tanh(inputs['a0']) + inputs['a1'] * 2}",
        "return {'out': np.where(np.isnan(X[:, 0]), -1.0, np.floor(X[:, 1]))}",
        "return {'out': np.maximum(np.maximum(X[:, 0], X[:, 1]), X[:, 2])}",
    ],
)
def test_5_1_elementwise_work_passes(body: str) -> None:
    runner(body).check()


def test_5_1_a_result_does_not_depend_on_how_the_process_treats_floating_point_errors() -> None:
    divide = runner("return {'out': inputs['a0'] / inputs['a1'] + (inputs['a2'] * 1e300).astype(np.float32)}")
    columns = {name: np.array([1.0, -1.0, 0.0, 1e300]) * (name != "a1") for name in FIELDS}
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        (out,) = divide.run(columns).values()
        divide.check()
    np.testing.assert_array_equal(out, [np.inf, np.nan, np.nan, np.inf])


@pytest.mark.parametrize(
    "body",
    [
        "return {'out': X @ np.linspace(0.1, 1.3, 8)}",
        "return {'out': np.dot(X, np.linspace(0.1, 1.3, 8))}",
        "return {'out': inputs['a0'] - np.nansum(inputs['a0'])}",
        "return {'out': inputs['a0'] / np.nanmax(np.abs(inputs['a1']))}",
        "return {'out': np.sort(inputs['a0'])}",
        "return {'out': np.cumsum(inputs['a0'])}",
        "return {'out': np.argsort(inputs['a0']).astype(float)}",
        "return {'out': inputs['a0'] * len(inputs['a0'])}",
        "return {'out': np.random.default_rng().random(len(X))}",
        "return {'out': np.roll(inputs['a0'], 1)}",
        "calls.append(1); return {'out': inputs['a0'] + len(calls)}",
        "return {'out': np.array([inputs['a0'].flags['OWNDATA'] and len(X) > 1] * len(X))}",
    ],
)
def test_5_1_work_across_rows_is_caught(body: str) -> None:
    with pytest.raises(
        DefinitionError,
        match=r"transform 'made' output 'out': depends on other rows",
    ):
        runner(body).check()


@pytest.mark.parametrize("when", ["len(X) == 1", "len(X) > 1", "X[0, 0] == 2**53"])
def test_a_function_that_fails_for_some_rows_alone_is_refused(when: str) -> None:
    body = f"if {when}: raise ArithmeticError('no such row')\n    return {{'out': X[:, 0]}}"
    with pytest.raises(DefinitionError, match=r"transform 'made': fails on .* with ArithmeticError .got 'no such row'"):
        runner(body).check()


def test_5_1_inputs_come_as_contiguous_one_dimensional_arrays() -> None:
    body = "return {'out': np.array([float(inputs['a0'].flags.c_contiguous and inputs['a0'].ndim == 1)] * len(X))}"
    wide = np.arange(20.0).reshape(10, 2)
    out = runner(body).run(dict.fromkeys(FIELDS, wide[:, 0]))
    assert out["out"].tolist() == [1.0] * 10


@pytest.mark.parametrize(
    "line", ["import os", "import numpy, math", "from pathlib import Path", "from . import x", "import math as np"]
)
@pytest.mark.parametrize("inside", [False, True])
def test_5_1_an_import_other_than_numpy_is_refused(line: str, *, inside: bool) -> None:
    source = (
        f"def f(inputs):\n    {line}\n    return inputs" if inside else f"{line}\ndef f(inputs):\n    return inputs"
    )
    transform = make_transform(source, ["request.a0"], {"a0": DType.FLOAT64})
    with pytest.raises(DefinitionError, match="transform 'made': imports more than numpy"):
        TransformRunner.from_plan(make_plan([], request=FIELDS, transforms=[transform]), transform)


def test_5_1_numpy_and_future_imports_are_allowed() -> None:
    source = (
        "from __future__ import annotations\nimport numpy.linalg\nfrom numpy import tanh\ndef f(inputs): return inputs"
    )
    transform = make_transform(source, ["request.a0"], {"a0": DType.FLOAT64})
    TransformRunner.from_plan(make_plan([], request=FIELDS, transforms=[transform]), transform).check()


def test_a_module_without_the_function_is_refused() -> None:
    transform = make_transform("g = 1", ["request.a0"])
    with pytest.raises(DefinitionError, match=r"has no such function in its module.*'f'"):
        TransformRunner.from_plan(make_plan([], request=FIELDS, transforms=[transform]), transform)


@pytest.mark.parametrize(
    "body", ["return {}", "return {'out': 1.0}", "return {'out': inputs['a0'][:-1]}", "return {'out': X}"]
)
def test_an_output_that_is_missing_or_has_another_shape_is_refused(body: str) -> None:
    with pytest.raises(DefinitionError, match="output 'out': is not an array of shape"):
        runner(body).check()


def test_a_list_for_an_output_becomes_an_array() -> None:
    out = runner("return {'out': [1.0] * len(X)}").run({name: np.zeros(2) for name in FIELDS})
    assert out["out"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "expression", ["np.full(len(X), 'a')", "['a'] * len(X)", "np.array(['a'] * len(X), dtype=object)"]
)
def test_text_outputs_are_objects_however_they_are_made(expression: str) -> None:
    text = runner(f"return {{'out': {expression}}}", {"out": DType.STRING})
    text.check()
    out = text.run({name: np.zeros(2) for name in FIELDS})["out"]
    assert out.dtype == object
    assert out.tolist() == ["a", "a"]
    assert type(out[0]) is str


def typed_plan() -> tuple[FeaturePlan, Transform]:
    types = {f"r_{dtype}": dtype for dtype in DType}
    view = make_view(features={f"v_{dtype}": dtype for dtype in DType})
    inputs = [*(f"request.{name}" for name in types), *(f"v.v_{dtype}" for dtype in DType)]
    transform = make_transform("def f(inputs): return {'out': inputs['r_float64']}", inputs)
    return make_plan(["made.out"], views=[view], request=types, transforms=[transform]), transform


def test_5_1_numbers_of_views_are_float64_and_request_fields_keep_their_kind() -> None:
    plan, transform = typed_plan()
    seen = {ref.name: input_dtype(plan, ref) for ref in transform.inputs}
    text = {DType.STRING, DType.BYTES}
    assert {seen[f"v_{dtype}"] for dtype in DType if dtype not in text} == {DType.FLOAT64}
    assert {seen[f"r_{dtype}"] for dtype in (DType.INT32, DType.INT64, DType.TIMESTAMP)} == {DType.INT64}
    assert {seen[f"r_{dtype}"] for dtype in (DType.FLOAT32, DType.FLOAT64)} == {DType.FLOAT64}
    assert seen["r_bool"] is DType.BOOL
    assert seen["r_string"] is seen["v_string"] is DType.STRING
    TransformRunner.from_plan(plan, transform).check()


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (np.array([0.0]), np.array([-0.0]), False),
        (np.array([np.nan]), np.array([np.nan]), True),
        (np.array([1]), np.array([1.0]), False),
        (np.array([1.0]), np.array([1.0, 1.0]), False),
        (np.array(["a", None], dtype=object), np.array(["a", None], dtype=object), True),
        (np.array(["a"], dtype=object), np.array(["b"], dtype=object), False),
    ],
)
def test_bits_are_compared_as_bits(left: npt.NDArray[Any], right: npt.NDArray[Any], *, same: bool) -> None:
    assert has_same_bits(left, right) is same


def test_references_are_made_of_group_and_name() -> None:
    assert [ref.label for ref in refs("v.x", "request.y")] == ["v__x", "request__y"]
