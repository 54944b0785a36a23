"""SEMANTICS 6.2: one assembler, float64, NaN for all but present values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.rows import Versions, ViewRead, empty_read
from skewless.contract.status import Status
from skewless.contract.vector import Assembler
from tests.worlds.plans import make_plan, make_transform, make_view

T = np.array([100, 100, 100, 100], dtype=np.int64)
TYPES = {"n": DType.INT64, "f": DType.FLOAT32, "b": DType.BOOL, "s": DType.STRING, "at": DType.TIMESTAMP}
VIEW = make_view(features=TYPES, ttl_us=50)
TRANSFORM = make_transform(
    "import numpy as np\ndef f(inputs):\n"
    "    word = np.where(inputs['n'] > 4, 'big', 'small').astype(object)\n"
    "    return {'twice': inputs['amount'] * 2, 'word': word, 'hour': inputs['at_us'] // 10}\n",
    ["request.amount", "request.at_us", "v.n"],
    {"twice": DType.FLOAT64, "word": DType.STRING, "hour": DType.INT64},
)
LABELS = ["v.s", "v.n", "made.twice", "v.f", "v.b", "made.word", "request.amount", "v.at", "made.hour"]
PLAN = make_plan(
    LABELS, views=[VIEW], request={"amount": DType.FLOAT64, "at_us": DType.TIMESTAMP}, transforms=[TRANSFORM]
)
REQUEST = {"amount": np.array([1.5, 2.5, np.nan, 4.0]), "at_us": np.array([10, 20, 30, 45], dtype=np.int64)}
WORDS = {"v__s": ["a", "b"], "made__word": ["big", "small"]}


def read(event_ts: list[int], found: list[bool] | None = None, nulls: dict[str, list[bool]] | None = None) -> ViewRead:
    n = len(event_ts)
    values: dict[str, Any] = {
        "n": np.array([2**53 + 1, 3, 4, 5]),
        "f": np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32),
        "b": np.array([True, False, True, True]),
        "s": np.array(["a", "b", "unknown", "a"], dtype=object),
        "at": np.array([-1, 0, 1, 2]),
    }
    masks = {name: np.array((nulls or {}).get(name, [False] * n)) for name in TYPES}
    origin = replace(Versions.empty(n), event_ts=np.array(event_ts, dtype=np.int64))
    return ViewRead(has_row=np.array(found or [True] * n), available=True, versions=origin, values=values, nulls=masks)


def assemble(plan: FeaturePlan, answer: ViewRead, words: dict[str, list[str]] | None = None) -> dict[str, list[float]]:
    assembler = Assembler(plan, WORDS if words is None else words)
    vectors = assembler.assemble(T, {"v": answer}, REQUEST)
    assert vectors.matrix.dtype == np.float64
    assert vectors.matrix.flags.c_contiguous
    return {label: vectors.matrix[:, i].tolist() for i, label in enumerate(assembler.labels)}


def none_for_nan(column: list[float]) -> list[float | None]:
    return [None if np.isnan(value) else value for value in column]


def test_6_2_columns_are_in_the_order_of_the_service_and_widened_exactly() -> None:
    got = assemble(PLAN, read([100, 100, 100, 100]))
    assert list(got) == [label.replace(".", "__") for label in LABELS]
    assert got["v__n"] == [float(2**53), 3.0, 4.0, 5.0]
    assert got["v__f"] == [float(np.float32(value)) for value in (0.1, 0.2, 0.3, 0.4)]
    assert got["v__b"] == [1.0, 0.0, 1.0, 1.0]
    assert got["v__at"] == [-1.0, 0.0, 1.0, 2.0]
    assert none_for_nan(got["made__twice"]) == [3.0, 5.0, None, 8.0]
    assert none_for_nan(got["request__amount"]) == [1.5, 2.5, None, 4.0]
    assert got["made__hour"] == [1.0, 2.0, 3.0, 4.0]


def test_6_2_words_become_codes_and_unknown_ones_nan() -> None:
    got = assemble(PLAN, read([100, 100, 100, 100]))
    assert none_for_nan(got["v__s"]) == [0.0, 1.0, None, 0.0]
    assert got["made__word"] == [0.0, 1.0, 1.0, 0.0]


def test_2_5_the_model_sees_null_for_all_but_present() -> None:
    answer = read([100, 49, 101, 50], found=[False, True, True, True], nulls={"n": [False, False, False, True]})
    vectors = Assembler(PLAN, WORDS).assemble(T, {"v": answer}, REQUEST)
    assert [Status(one).name for one in vectors.status["v"]] == ["NOT_FOUND", "EXPIRED", "FUTURE", "PRESENT"]
    got = assemble(PLAN, answer)
    assert none_for_nan(got["v__n"]) == [None, None, None, None]
    assert none_for_nan(got["v__at"]) == [None, None, None, 2.0]
    assert none_for_nan(got["v__s"]) == [None, None, None, 0.0]


def test_2_5_a_transform_sees_null_for_all_but_present() -> None:
    got = assemble(PLAN, read([49, 100, 100, 100]))
    assert got["made__word"] == [1.0, 1.0, 1.0, 0.0]


def test_2_5_a_store_that_did_not_answer_is_unavailable() -> None:
    vectors = Assembler(PLAN, WORDS).assemble(T, {"v": empty_read(VIEW, 4, available=False)}, REQUEST)
    assert set(vectors.status["v"].tolist()) == {int(Status.UNAVAILABLE)}
    assert np.isnan(vectors.matrix[:, 1]).all()


def test_2_5_there_is_no_status_stale() -> None:
    lazy = replace(VIEW, freshness_us=1)
    got = assemble(replace(PLAN, views=(lazy,)), read([60, 60, 60, 60]))
    assert none_for_nan(got["v__at"]) == [-1.0, 0.0, 1.0, 2.0]


def test_6_2_a_vocabulary_is_made_of_the_chosen_rows_only() -> None:
    chosen = np.array([False, True, True, True])
    words = Assembler(PLAN, {}).collect_vocabularies(T, {"v": read([100, 100, 49, 100])}, REQUEST, chosen)
    assert words == {"v__s": ["a", "b"], "made__word": ["big", "small"]}


def test_6_2_text_without_a_vocabulary_is_refused() -> None:
    with pytest.raises(DefinitionError, match="feature 'v__s': is text without a vocabulary"):
        assemble(PLAN, read([100, 100, 100, 100]), {})


def test_text_columns_are_categorical() -> None:
    assert Assembler(PLAN, WORDS).categorical == (0, 5)


@pytest.mark.parametrize("view", [VIEW, replace(VIEW, ttl_us=0)])
def test_6_2_one_row_alone_gives_the_bits_that_it_gives_among_others(view: View) -> None:
    plan = replace(PLAN, views=(view,))
    answer = read([49, 100, 101, 60])
    whole = Assembler(plan, WORDS).assemble(T, {"v": answer}, REQUEST).matrix
    for i in range(4):
        part = slice(i, i + 1)
        one = ViewRead(
            has_row=answer.has_row[part],
            available=True,
            versions=replace(Versions.empty(1), event_ts=answer.versions.event_ts[part]),
            values={name: column[part] for name, column in answer.values.items()},
            nulls={name: mask[part] for name, mask in answer.nulls.items()},
        )
        request = {name: column[part] for name, column in REQUEST.items()}
        assert Assembler(plan, WORDS).assemble(T[part], {"v": one}, request).matrix.tobytes() == whole[i].tobytes()
