"""SEMANTICS 6.2: rows of several views read at once give the bits that they give one view at a time."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skewless.contract.dtypes import DType
from skewless.contract.number_rows import NumberRows
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.rows import RowCodec, Versions
from skewless.contract.vector import Assembler
from tests.property.test_vector import BITS, column
from tests.worlds.plans import make_plan, make_transform, make_view

TYPES = st.sampled_from(list(DType))
WORDS = ["0", "2"]
NOW = 10
AGES = st.integers(-3, 14) | st.sampled_from([NOW - 2**63 + 1, 2**63 + NOW - 1])
# One row of a view: bits of its values, which is null, its age, and whether it says "deleted".
ROW = st.tuples(BITS, st.integers(0, 9), AGES, st.booleans())


def pack(view: View, bits: int, null: int, age: int, *, deleted: bool) -> bytes:
    names = {item.name: item.dtype for item in view.features}
    origin = replace(
        Versions.empty(1),
        event_ts=np.array([NOW - age]),
        seq=np.array([7]),
        run_id=np.array([1]),
        tombstone=np.array([deleted]),
    )
    values = {name: column(dtype, [bits + i]) for i, (name, dtype) in enumerate(names.items())}
    nulls = {name: np.array([i == null]) for i, name in enumerate(names)}
    (row,) = RowCodec(view).encode(origin, values, nulls)
    return row


@st.composite
def plans(draw: st.DrawFn) -> FeaturePlan:
    views = []
    for name in draw(st.sampled_from(["a", "ab", "abc"])):
        types = draw(st.lists(TYPES, min_size=1, max_size=12) | st.lists(st.just(DType.FLOAT64), max_size=2))
        features = {f"{name}{i}": dtype for i, dtype in enumerate(types)}
        views.append(make_view(name, features=features, ttl_us=draw(st.sampled_from([0, 5, NOW]))))
    every = [f"{view.name}.{item.name}" for view in views for item in view.features]
    shown = draw(st.permutations(every).map(lambda names: names[: max(len(names) // 2, 1)]) | st.just(every))
    return make_plan(shown, views=views)


@given(plans(), st.data())
def test_6_2_all_views_at_once_give_the_bits_of_each_alone(plan: FeaturePlan, data: st.DataObject) -> None:
    assembler = Assembler(plan, {f"{view.name}__{item.name}": WORDS for view in plan.views for item in view.features})
    assert assembler.joins_blocks == bool(assembler.refs)
    if not assembler.refs:
        return
    n = data.draw(st.integers(0, 8))
    rows: list[bytes | None] = []
    for _ in range(n):
        for view in plan.views:
            drawn = data.draw(st.none() | ROW)
            if drawn is None:
                rows.append(None)
            else:
                bits, null, age, deleted = drawn
                rows.append(pack(view, bits % 2**63, null, age, deleted=deleted))
    together = NumberRows(plan.views, assembler.refs, assembler.codes).vectors(rows, NOW)
    reads = {view.name: RowCodec(view).decode(rows[i :: len(plan.views)]) for i, view in enumerate(plan.views)}
    apart = assembler.assemble(np.full(n, NOW), reads, {})
    assert together is not None
    assert together.matrix.flags.c_contiguous
    assert together.matrix.tobytes() == apart.matrix.tobytes()
    for i, view in enumerate(plan.views):
        assert together.status[:, i].tolist() == apart.status[view.name].tolist()
        assert together.event_ts[:, i].tolist() == reads[view.name].versions.event_ts.tolist()
        for field in fields(Versions):
            one, other = together.versions[view.name], reads[view.name].versions
            assert getattr(one, field.name).tolist() == getattr(other, field.name).tolist()


def two() -> FeaturePlan:
    text = {"s": DType.STRING, "y": DType.INT32, "b": DType.BYTES}
    views = [make_view("a", features={"x": DType.FLOAT64}), make_view("b", features=text)]
    return make_plan(["a.x", "b.y", "b.s"], views=views)


@pytest.mark.parametrize(
    "bad",
    ["cut short", "longer", "of a short text", "of a short row", "of another view", "swapped", "of another format"],
)
def test_a_row_that_is_none_of_its_view_is_not_read(bad: str) -> None:
    plan = two()
    a, b = (pack(view, 1, 9, 0, deleted=False) for view in plan.views)
    wrong = {
        "cut short": [a, b, a[:-1], b],
        "longer": [a, b + b"x", a[:-1], b],
        "of a short text": [a, b[:-1], a, b],
        "of a short row": [a, b[:60], a, b],
        "of another view": [a, b, a, pack(replace(plan.views[1], name="c"), 1, 9, 0, deleted=False)],
        "swapped": [b, a, a, b],
        "of another format": [a, b, a[:48] + b"\x02" + a[49:], b],
    }[bad]
    reader = NumberRows(plan.views, plan.services[0].features, {"b__s": {"1": 7.0}})
    found = reader.vectors([a, b, a, b], NOW)
    assert found is not None
    assert found.matrix[0, 2] == 7.0
    assert reader.vectors(wrong, NOW) is None


def test_texts_of_transforms_and_without_categories_and_two_versions_of_a_view_are_for_the_long_way() -> None:
    text = make_view(features={"x": DType.FLOAT64, "s": DType.STRING})
    words = {"v__s": WORDS}
    reads_text = make_transform("def f(inputs):\n    return {'out': inputs['x']}\n", ["v.x", "v.s"])
    assert Assembler(make_plan(["v.x"], views=[text]), {}).joins_blocks
    assert Assembler(make_plan(["v.s"], views=[text]), words).joins_blocks
    assert not Assembler(make_plan(["v.s"], views=[text]), {}).joins_blocks
    assert not Assembler(make_plan(["v.s", "made.out"], views=[text], transforms=[reads_text]), words).joins_blocks
    assert not Assembler(make_plan([], views=[make_view()]), {}).joins_blocks
    versions = [make_view(), make_view(features={"x": DType.INT64})]
    assert not Assembler(make_plan(["v.x"], views=versions), {}).joins_blocks
