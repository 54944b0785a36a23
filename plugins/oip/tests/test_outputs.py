from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from skewless.contract.errors import RequestError
from skewless.contract.status import Status
from skewless_oip.conversion import build_outputs, encode_reply, requested_outputs
from skewless_oip.request import InferRequest
from skewless_oip.signature import OipModels, Signature
from tests.unit.serving.standing_in import answer, model

PLAIN = model()
DECIDING = model(spec={"decisions": {"approve": 0.0, "decline": 0.5}})
CLASSES = model(n_outputs=2, spec={"task": "multiclass", "classes": ("cat", "dog")})


def asked(*names: str, binary: bool = False) -> InferRequest:
    return InferRequest(id=None, parameters={}, inputs={}, outputs=dict.fromkeys(names, binary), binary=binary)


def data(of: Any, names: list[str], **more: Any) -> dict[str, Any]:  # noqa: ANN401 - of `answer`
    outputs = build_outputs(Signature(of), answer(of, **more), dict.fromkeys(names, False))
    body, _ = encode_reply(b"{", outputs)
    return {item["name"]: (item["shape"], item["data"]) for item in json.loads(body)["outputs"]}


def test_who_names_no_output_gets_the_usual_ones() -> None:
    assert requested_outputs(Signature(PLAIN), asked()) == {"score": False}
    assert requested_outputs(Signature(DECIDING), asked(binary=True)) == {"score": True, "decision": True}
    assert requested_outputs(Signature(CLASSES), asked()) == {"score": False, "decision": False}


def test_an_output_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(RequestError, match=r"output 'decision': is unknown.*score, prediction_id"):
        requested_outputs(Signature(PLAIN), asked("score", "decision"))


def test_scores_and_decisions() -> None:
    assert data(DECIDING, ["decision", "score", "prediction_id"], scores=np.array([0.5, -1.0])) == {
        "decision": ([2], ["decline", None]),
        "score": ([2], [0.5, -1.0]),
        "prediction_id": ([2], ["p-0", "p-1"]),
    }
    many = np.array([[0.25, 0.75], [0.5, 0.5]])
    assert data(CLASSES, ["score", "decision"], scores=many) == {
        "score": ([2, 2], [0.25, 0.75, 0.5, 0.5]),
        "decision": ([2], ["dog", "cat"]),
    }


def test_what_was_looked_up() -> None:
    vectors = {
        "status": [[Status.PRESENT, Status.NOT_FOUND], [Status.EXPIRED, Status.PRESENT]],
        "event_ts": [[8, 0], [7, 4]],
    }
    names = ["feature_status", "feature_age_s", "feature_stale", "feature_values"]
    found = data(PLAIN, names, scores=np.zeros(2), **vectors)
    assert found["feature_status"] == ([2, 2], ["PRESENT", "NOT_FOUND", "EXPIRED", "PRESENT"])
    assert found["feature_age_s"] == ([2, 2], [pytest.approx(2e-6), None, pytest.approx(3e-6), pytest.approx(6e-6)])
    assert found["feature_stale"] == ([2, 2], [False, False, False, True])
    assert found["feature_values"] == ([2, 3], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    stricter = data(PLAIN, ["feature_stale"], scores=np.zeros(2), max_age_us=2, **vectors)
    assert stricter["feature_stale"] == ([2, 2], [False, False, True, True])


def test_vectors_were_not_looked_up() -> None:
    found = data(PLAIN, ["feature_status", "feature_age_s", "feature_stale"], scores=np.zeros(2))
    assert set(map(str, found.values())) == {"([2, 0], [])"}


def test_leaves_are_by_tree() -> None:
    leaves = np.array([[3, 0, 1], [2, 2, 0]], dtype=np.int32)
    assert data(PLAIN, ["leaves"], scores=np.zeros(2), extras={"leaves": leaves}) == {
        "leaves": ([2, 3], [3, 0, 1, 2, 2, 0])
    }


def test_contributions_are_by_feature_and_of_classes_by_class() -> None:
    assert data(
        PLAIN, ["contributions"], scores=np.zeros(1), extras={"contributions": np.arange(4.0).reshape(1, 4)}
    ) == {"contributions": ([1, 4], [0.0, 1.0, 2.0, 3.0])}
    found = data(
        CLASSES, ["contributions"], scores=np.zeros((1, 2)), extras={"contributions": np.arange(8.0).reshape(1, 2, 4)}
    )
    assert found == {"contributions": ([1, 2, 4], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])}


@pytest.mark.parametrize("of", [PLAIN, DECIDING, CLASSES])
def test_every_output_is_of_the_shape_and_datatype_that_the_metadata_say(of: Any) -> None:  # noqa: ANN401 - a model
    signature, k = Signature(of), of.runtime.n_outputs
    one = k == 1
    given = answer(
        of,
        np.zeros(3) if one else np.zeros((3, k)),
        status=[[0, 0]] * 3,
        event_ts=[[0, 0]] * 3,
        extras={
            "contributions": np.zeros((3, 4) if one else (3, k, 4)),
            "leaves": np.zeros((3, 7), dtype=np.int32),
        },
    )
    for output in build_outputs(signature, given, dict.fromkeys(signature.outputs, True)):
        promised = signature.outputs[output.name]
        assert output.datatype is promised.datatype
        sizes = zip(output.array.shape, (3, *promised.shape[1:]), strict=True)
        assert all(told in {size, -1} for size, told in sizes)
        assert output.datatype.numpy.kind == output.array.dtype.kind


def test_a_reply_begins_with_what_is_known_of_the_model() -> None:
    head = Signature(PLAIN).head('4"2', 7, degraded=True)
    assert json.loads(head + b'"outputs":[]}') == {
        "model_name": "m",
        "model_version": "000001",
        "id": '4"2',
        "parameters": {
            "model_version": "000001",
            "plan_hash": PLAIN.plan.hash,
            "log": "best_effort",
            "t_us": 7,
            "degraded": True,
        },
        "outputs": [],
    }
    assert "id" not in json.loads(Signature(PLAIN).head(None, 7, degraded=False) + b'"outputs":[]}')


def test_a_version_is_forgotten_when_it_is_gone() -> None:
    shown, passing = OipModels(), model()
    assert shown.get(passing) is shown.get(passing)
    assert len(shown._models) == 1
    del passing
    assert len(shown._models) == 0
