"""The training set: what each row could have seen when it would have been asked, and nothing later."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from skewless.contract.dtypes import DType
from skewless.contract.errors import DefinitionError, SourceError
from skewless.contract.spec import ModelSpec, Split, TimeMode
from skewless.infra.log.log_columns import CREATED, EVENT, REJECT, SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.platform.storage.project_state import ProjectState
from tests.worlds.latest import times
from tests.worlds.ledger_runs import known_ranges, read_runs
from tests.worlds.planted import rewrite
from tests.worlds.shop import DAY, END, HORIZON, PLAN, SPEC, Shop


def forget_after(shop: Shop, t: int, mode: TimeMode) -> Shop:
    """Return a copy without anything that was known, or had happened, only after t."""
    copy = replace(shop, root=shop.root.with_name(f"until_{t}"))
    shutil.copytree(shop.root, copy.root)
    for view in PLAN.views:
        log = PartitionLog(ProjectState(copy.state), view.partition)
        ranges = known_ranges(read_runs(ProjectState(shop.state).database), view.partition)
        for path in map(Path, log.files()):
            rows = pq.read_table(path)
            later = []
            for row in rows.to_pylist():
                live = next(one for one in ranges if one.first <= row[SEQ] <= one.last)
                published = row[EVENT] + view.delay_us if row[CREATED] is None else row[CREATED]
                known = live.ended_us if live.kind == "live" else published
                later.append("later" if (known if mode == "knowledge" else row[EVENT]) > t else row[REJECT])
            place = rows.schema.get_field_index(REJECT)
            rewrite(path, rows.set_column(place, REJECT, pa.array(later, pa.string())))
    labels = shop.read("labels.parquet")
    asked = labels.filter(pc.less_equal(labels["at"].cast(pa.int64()), t + HORIZON))
    # The outcome is not known yet; a constant in its place keeps the rows.
    n = asked.num_rows
    asked = asked.set_column(3, "y", pa.array([0] * n)).set_column(2, "known", times(*[t] * n))
    copy.write("labels.parquet", asked)
    return copy


def whole(shop: Shop, spec: ModelSpec) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return times and matrix of every row of the label table, whatever is known of its label."""
    labels = shop.read("labels.parquet")
    n = labels.num_rows
    table = labels.set_column(3, "y", pa.array([0] * n)).set_column(2, "known", times(*[0] * n))
    shop.write("labels.parquet", table)
    dataset = shop.dataset(spec)
    shop.write("labels.parquet", labels)
    return dataset.t, dataset.matrix


@pytest.mark.parametrize("mode", ["knowledge", "event_time"])
def test_2_6_nothing_known_only_after_t_reaches_a_feature(shop: Shop, mode: TimeMode) -> None:
    spec = replace(SPEC, time_mode=mode, split=Split(test=timedelta(hours=1)))
    t, matrix = whole(shop, spec)
    assert np.isfinite(matrix[:, 0]).mean() > 0.5
    for cut in (9 * DAY + 1, 20 * DAY, 20 * DAY - 1_000, 33 * DAY):
        before = forget_after(shop, cut, mode)
        seen, expected = whole(before, spec)
        asked = t <= cut
        assert seen.tolist() == t[asked].tolist()
        # Words are coded by what training rows hold, which is another table here: compared below.
        assert expected[:, [0, 2, 3]].tobytes() == np.ascontiguousarray(matrix[asked][:, [0, 2, 3]]).tobytes()
        assert np.isnan(expected[:, 1]).tolist() == np.isnan(matrix[asked][:, 1]).tolist()


def test_2_6_sources_cut_at_publication_give_the_same_rows(shop: Shop, tmp_path: Path) -> None:
    """The same from the user's side: a project made at t from what was published by then."""
    fresh = replace(shop, root=tmp_path / "fresh")
    cut_world = replace(shop, root=tmp_path / "cut")
    cut = 25 * DAY
    for one in (fresh, cut_world):
        one.root.mkdir()
        for name in ("v.parquet", "slow.parquet", "labels.parquet"):
            one.write(name, shop.read(name))
    view, slow = shop.read("v.parquet"), shop.read("slow.parquet")
    cut_world.write("v.parquet", view.filter(pc.less_equal(view["created"].cast(pa.int64()), cut)))
    cut_world.write("slow.parquet", slow.filter(pc.less_equal(slow["event"].cast(pa.int64()), cut - DAY)))
    fresh.materialize(END)
    cut_world.materialize(cut)
    spec = replace(SPEC, split=Split(test=timedelta(hours=1)))
    (t, matrix), (_, until) = whole(fresh, spec), whole(cut_world, spec)
    assert until[t <= cut][:, [0, 2, 3]].tobytes() == matrix[t <= cut][:, [0, 2, 3]].tobytes()
    assert until[t > cut + 5 * DAY].tobytes() != matrix[t > cut + 5 * DAY].tobytes()


def test_the_split_is_by_time_with_an_embargo_and_by_what_was_known(shop: Shop) -> None:
    dataset = shop.dataset()
    end = min(dataset.t.max(), END)
    start = end - 8 * DAY
    assert dataset.test.tolist() == [t > start for t in dataset.t.tolist()]
    assert dataset.train.tolist() == [
        t <= start - 2 * DAY and known <= start
        for t, known in zip(dataset.t.tolist(), dataset.known.tolist(), strict=True)
    ]
    neither = ~dataset.train & ~dataset.test
    embargoed = (dataset.t > start - 2 * DAY) & (dataset.t <= start)
    assert embargoed.sum() > 0
    assert neither[embargoed].all()
    assert dataset.table()["split"].to_pylist().count("embargo") == int(neither.sum())


def test_a_label_that_became_known_in_the_test_period_does_not_train(shop: Shop) -> None:
    labels = shop.read("labels.parquet")
    known = labels["known"].cast(pa.int64()).to_pylist()
    first = shop.dataset().t.tolist().index(shop.dataset().t[shop.dataset().train][0])
    before = shop.dataset()
    at = labels["at"].cast(pa.int64()).to_pylist()
    row = next(i for i, one in enumerate(at) if (one - HORIZON) // 1_000 * 1_000 == before.t[first])
    known[row] = END
    shop.write("labels.parquet", labels.set_column(2, "known", times(*known)))
    after = shop.dataset()
    assert after.train.sum() == before.train.sum() - 1
    assert len(after.t) == len(before.t)


def test_labels_not_known_yet_or_never_are_left_out_and_counted(shop: Shop) -> None:
    now = 30 * DAY
    rows = shop.read("labels.parquet").to_pydict()
    known = [None if one is None else int(one.timestamp() * 1_000_000) for one in rows["known"]]
    dataset = shop.dataset(now_us=now)
    usable = [y is not None and one is not None and one <= now for y, one in zip(rows["y"], known, strict=True)]
    without = sum(y is None for y in rows["y"])
    assert dataset.counts == {
        "rows": 500,
        "without_label": without,
        "not_yet_known": 500 - sum(usable) - without,
        "not_askable": 0,
        "used": sum(usable),
        "contradicting": 0,
    }
    assert len(dataset.labels) == sum(usable)
    assert (dataset.known <= now).all()


def test_a_label_that_is_not_a_number_is_no_label(shop: Shop) -> None:
    before = shop.dataset()
    labels = shop.read("labels.parquet")
    values = [float("nan") if y is None else float(y) for y in labels["y"].to_pylist()]
    shop.write("labels.parquet", labels.set_column(3, "y", pa.array(values, from_pandas=False)))
    after = shop.dataset()
    assert after.counts == before.counts
    assert np.isfinite(after.labels).all()


def test_1_2_times_are_floored_to_the_millisecond_also_before_1970(shop: Shop) -> None:
    moments = [-HORIZON - 1, -1, 0, 1, 999, 1_000, HORIZON + 1_999, HORIZON - 1, END, END - 1, -HORIZON - 1_000]
    n = len(moments)
    shop.write(
        "labels.parquet",
        pa.table({"who": [1] * n, "at": times(*moments), "known": times(*[0] * n), "y": [1] * n, "amount": [0.0] * n}),
    )
    dataset = shop.dataset(replace(SPEC, split=Split(test=timedelta(days=1))))
    assert dataset.t.tolist() == sorted((moment - HORIZON) // 1_000 * 1_000 for moment in moments)


def test_6_2_a_vocabulary_is_made_of_training_rows_only(shop: Shop) -> None:
    rows = {"id": [50, 51], "event": times(END - DAY, 5 * DAY), "created": times(END - DAY, 5 * DAY)}
    more = pa.table({**rows, "x": [1.0, 1.0], "s": ["only in test", "in training"], "gone": [False, False]})
    shop.write("v.parquet", pa.concat_tables([shop.read("v.parquet"), more], promote_options="permissive"))
    asked = {"who": [50, 51], "at": times(END, 6 * DAY), "known": times(END, 7 * DAY), "y": [1, 1]}
    labels = [shop.read("labels.parquet"), pa.table({**asked, "amount": [0.0, 0.0]})]
    shop.write("labels.parquet", pa.concat_tables(labels, promote_options="permissive"))
    spec = replace(SPEC, time_mode="event_time")
    shop.materialize(END + 1)
    dataset = shop.dataset(spec, now_us=END + 1)
    assert dataset.vocabularies == {"v__s": ["a", "b", "c", "in training"]}
    last = dataset.t.tolist().index(END - HORIZON)
    assert dataset.test[last]
    assert np.isnan(dataset.matrix[last, 1])
    assert dataset.matrix[last, 0] == 1.0


def test_the_same_data_has_the_same_fingerprint_and_other_data_another(shop: Shop) -> None:
    first = shop.dataset()
    assert shop.dataset().fingerprint == first.fingerprint
    labels = shop.read("labels.parquet")
    shop.write("labels.parquet", labels.take(pa.array(np.random.default_rng(1).permutation(labels.num_rows))))
    assert shop.dataset().fingerprint == first.fingerprint
    shop.write("labels.parquet", labels.slice(1))
    assert shop.dataset().fingerprint != first.fingerprint


def test_rows_of_one_group_have_one_number(shop: Shop) -> None:
    """The group is a key here, null in some rows: those are a group of their own."""
    assert shop.dataset().groups is None
    dataset = shop.dataset(replace(SPEC, task="ranking", group="id"))
    by_amount = {row["amount"]: row["who"] for row in shop.read("labels.parquet").to_pylist()}
    who = [by_amount[amount] for amount in dataset.request["amount"].tolist()]
    assert dataset.groups is not None
    pairs = set(zip(who, dataset.groups.tolist(), strict=True))
    assert None in who
    assert len(pairs) == len(set(who)) == dataset.groups.max() + 1
    assert dataset.groups[0] == 0
    assert dataset.fingerprint != shop.dataset().fingerprint


@pytest.mark.parametrize(
    ("split", "now", "message"),
    [
        (Split(test=timedelta(days=100)), END, "has no row in the train period"),
        (Split(test=timedelta(days=8), embargo=timedelta(days=60)), END, "has no row in the train period"),
        (Split(test=timedelta(days=8)), 0, "has no usable row.*add labels, or move the clock"),
    ],
)
def test_a_split_without_rows_on_one_side_is_refused(shop: Shop, split: Split, now: int, message: str) -> None:
    with pytest.raises(SourceError, match=f"label table of model 'm': {message}"):
        shop.dataset(replace(SPEC, split=split), now_us=now)


def test_rows_that_serving_would_refuse_are_left_out_and_counted(shop: Shop) -> None:
    plan = replace(PLAN, request=(replace(PLAN.request[0], dtype=DType.INT64),))
    labels = shop.read("labels.parquet")
    amounts = [None if i % 10 == 0 else 1.5 if i % 10 == 1 else 2.0 for i in range(labels.num_rows)]
    shop.write("labels.parquet", labels.set_column(4, "amount", pa.array(amounts)))
    dataset = shop.training_builder(plan=plan).build()
    assert dataset.counts["not_askable"] > 0
    assert set(dataset.request["amount"].tolist()) == {2}


def test_slices_are_the_columns_that_the_spec_names(shop: Shop) -> None:
    dataset = shop.dataset(replace(SPEC, slices=("id", "amount")))
    assert set(dataset.slices) == {"id", "amount"}
    who = shop.read("labels.parquet")["who"].to_pylist()
    assert set(dataset.slices["id"].values) <= {"null" if each is None else str(each) for each in who}
    amounts = dataset.slices["amount"]
    assert [float(amounts.values[code]) for code in amounts.codes] == dataset.request["amount"].tolist()


@pytest.mark.parametrize(
    "fields", [{"slices": ("nosuch",)}, {"task": "ranking", "group": "nosuch"}, {"slices": ("__t",)}]
)
def test_a_slice_or_group_that_is_no_column_is_named(shop: Shop, fields: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=r"is not a key or request field.*use one of id, amount"):
        shop.dataset(replace(SPEC, **fields))
