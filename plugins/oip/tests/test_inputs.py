from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from skewless.contract.errors import RequestError
from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.prediction.routing import Options, ScoringRequest
from skewless_oip.conversion import build_request
from skewless_oip.request import parse_request
from skewless_oip.signature import Signature
from tests.unit.serving.standing_in import model

MODEL = model()
SIGNATURE = Signature(MODEL)
ENTITIES: dict[str, tuple[str, list[Any]]] = {
    "id": ("INT64", [7, 8]),
    "amount": ("FP64", [0.1, None]),
    "small": ("FP32", [0.1, 2.0]),
    "on": ("BOOL", [True, False]),
    "at": ("BYTES", ["1970-01-01T00:00:01Z", "1970-01-01T00:00:00+00:00"]),
}


ACCEPTING = model(spec={"accept_float32": True})


def question(
    tensors: dict[str, tuple[str, list[Any]]], shape: list[int] | None = None, of: ServedModel = MODEL
) -> ScoringRequest:
    inputs = [
        {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}
        for name, (datatype, data) in tensors.items()
    ]
    request = parse_request(json.dumps({"inputs": inputs}).encode())
    return build_request(of, SIGNATURE, request.inputs, Options(), 10)


def test_entities_become_columns_in_the_plans_types_and_rows_for_the_log() -> None:
    asked = question(ENTITIES)
    assert asked.columns is not None
    assert asked.n == 2
    assert asked.columns["id"] == [7, 8]
    assert asked.columns["at"] == [1_000_000, 0]
    assert asked.columns["on"] == [True, False]
    assert asked.columns["small"] == [float(np.float32(0.1)), 2.0]
    assert asked.columns["amount"][0] == 0.1
    assert np.isnan(asked.columns["amount"][1])
    assert json.loads(json.dumps(asked.rows[1])) == {
        "id": 8,
        "amount": None,
        "small": 2.0,
        "on": False,
        "at": "1970-01-01T00:00:00+00:00",
    }
    assert asked.vectors is None


@pytest.mark.parametrize("shape", [[2], [2, 1]])
def test_a_column_of_rows_is_as_good_as_a_list(shape: list[int]) -> None:
    assert str(question(ENTITIES, shape).columns) == str(question(ENTITIES).columns)


def test_rows_are_logged_so_that_they_parse_to_the_same_columns_again() -> None:
    asked = question(ENTITIES)
    again = MODEL.parser.parse_rows([json.loads(json.dumps(row)) for row in asked.rows])
    assert str(again) == str(asked.columns)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("amount", ("FP32", [1.0, 2.0]), "input 'amount': needs float64"),
        ("amount", ("FP16", [1.0, 2.0]), "input 'amount': needs float64"),
        ("amount", ("BOOL", [True, False]), "row 0 field 'amount'"),
        ("small", ("FP64", [1.0, 1e39]), "row 1 field 'small'.*range of float32"),
        ("id", ("UINT64", [7, 2**63]), "row 1 key 'id': does not fit int64"),
        ("id", ("INT64", [7]), "the inputs: have different numbers of rows"),
        ("on", ("INT8", [1, 0]), "row 0 field 'on'.*JSON boolean"),
    ],
)
def test_a_tensor_that_its_field_cannot_hold_is_refused(name: str, tensor: tuple[str, list[Any]], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        question({**ENTITIES, name: tensor})


def test_more_rows_than_a_request_may_have_are_refused() -> None:
    with pytest.raises(RequestError, match="has more than 10 rows"):
        question({name: (datatype, data[:1] * 11) for name, (datatype, data) in ENTITIES.items()})
    with pytest.raises(RequestError, match="has more than 10 rows"):
        question({"features": ("FP64", [0.0] * 33)}, [11, 3])


def test_vectors_are_taken_as_they_are() -> None:
    asked = question({"features": ("FP64", [1.0, None, float("inf"), -0.0, 5e-324, 2.0])}, [2, 3])
    assert asked.vectors is not None
    assert asked.columns is None
    assert asked.vectors.tobytes() == np.array([1.0, np.nan, np.inf, -0.0, 5e-324, 2.0]).tobytes()
    assert asked.vectors.flags["C_CONTIGUOUS"]
    assert asked.rows == [[1.0, pytest.approx(np.nan, nan_ok=True), np.inf], [0.0, 5e-324, 2.0]]


def test_vectors_may_come_feature_by_feature() -> None:
    asked = question(
        {"w__x": ("INT64", [1, 2**53]), "v__x": ("BOOL", [True, False]), "request__amount": ("FP64", [3, 4])}
    )
    assert asked.vectors is not None
    assert asked.vectors.tolist() == [[1.0, 1.0, 3.0], [0.0, 2.0**53, 4.0]]


@pytest.mark.parametrize("datatype", ["FP32", "FP16"])
def test_floats_of_fewer_bits_are_taken_where_the_spec_says_so_and_noted(datatype: str) -> None:
    asked = question({**ENTITIES, "amount": (datatype, [0.5, 2.0])}, of=ACCEPTING)
    assert asked.narrow
    assert asked.columns is not None
    assert list(asked.columns["amount"]) == [0.5, 2.0]
    beside = {"w__x": ("FP64", [1.0]), "v__x": ("FP64", [0.1]), "request__amount": (datatype, [0.1])}
    whole = question(beside, of=ACCEPTING)
    assert whole.narrow
    assert whole.vectors is not None
    rounded = np.array([0.1]).astype({"FP32": "f4", "FP16": "f2"}[datatype]).astype(np.float64).item()
    assert whole.vectors.tolist() == [[0.1, 1.0, rounded]]
    matrix = question({"features": (datatype, [1.0, 2.0, 0.1])}, [1, 3], of=ACCEPTING)
    assert matrix.narrow
    assert matrix.vectors is not None
    assert matrix.vectors.dtype == np.float64
    assert matrix.vectors.flags["C_CONTIGUOUS"]


def test_a_model_that_accepts_them_notes_nothing_of_floats_with_all_their_bits() -> None:
    assert not question(ENTITIES, of=ACCEPTING).narrow
    with pytest.raises(RequestError, match="input 'features': needs float64"):
        question({"features": ("INT32", [1, 2, 3])}, [1, 3], of=ACCEPTING)


@pytest.mark.parametrize("tensor", [("FP32", [1.0]), ("BYTES", ["1"]), ("INT64", [2**53 + 1]), ("UINT64", [2**64 - 1])])
def test_a_feature_that_float64_does_not_hold_is_refused(tensor: tuple[str, list[Any]]) -> None:
    others = {"w__x": ("FP64", [1.0]), "request__amount": ("FP64", [1.0])}
    with pytest.raises(RequestError, match=r"input 'v__x': (needs float64|has an integer beyond)"):
        question({"v__x": tensor, **others})


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x"], "input 'x': is unknown"),
        (["id", "x"], "input 'x': is unknown"),
        (["id", "amount"], "input 'small': is missing"),
        (["v__x"], "the inputs: are neither entity keys nor complete vectors"),
        (["features", "v__x"], "the inputs: are neither"),
        ([*ENTITIES, "v__x"], "the inputs: are entity keys and features at once"),
    ],
)
def test_other_tensors_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        question({name: ENTITIES.get(name, ("FP64", [1.0, 2.0])) for name in names})
