"""A version is scored on the vectors of its own plan, whatever has become of the definitions since."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from skewless.contract.columns import Column
from skewless.contract.dtypes import DType
from skewless.contract.errors import SkewlessError, SourceError, StoreError
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import Gate, ModelSpec
from skewless.infra.reads.offline.labels import label_source
from skewless.training.dataset import Dataset
from skewless.training.promotion import promote
from skewless.training.quality import score_version
from skewless.training.train import TrainedVersion, train
from tests.worlds.packages import store_at
from tests.worlds.plans import make_plan, make_transform, make_view
from tests.worlds.shop import DAY, END, PLAN, RATIO, SLOW, SPEC, VIEW, Shop

AMOUNT = {"amount": DType.FLOAT64}
OTHER = make_view("other", features={"x": DType.FLOAT64}, ttl_us=10 * DAY)
WHOLE = make_transform(
    "def f(inputs):\n    return {'out': inputs['x'] * 0 + inputs['amount']}\n", ["v.x", "request.amount"]
)
RENAMED = replace(VIEW, keys=(Column(name="card", dtype=DType.INT64),))
CHANGES: dict[str, FeaturePlan] = {
    "a feature dropped": make_plan(
        ["v.x", "slow.n", "made.out"],
        views=[replace(VIEW, features=VIEW.features[:1]), SLOW],
        request=AMOUNT,
        transforms=[RATIO],
    ),
    "a feature's type": make_plan(
        ["v.x", "slow.n"], views=[VIEW, replace(SLOW, features=(Column(name="n", dtype=DType.FLOAT64),))]
    ),
    "a view renamed": make_plan(["other.x"], views=[OTHER]),
    "a view dropped": make_plan(["v.x", "v.s", "request.amount"], views=[VIEW], request=AMOUNT),
    "a request field dropped": make_plan(["v.x", "slow.n"], views=[VIEW, SLOW]),
    "a request field's type": make_plan(["v.x", "request.amount"], views=[VIEW], request={"amount": DType.FLOAT32}),
    "a transform": make_plan(["v.x", "made.out"], views=[VIEW], request=AMOUNT, transforms=[WHOLE]),
    "a limit of age": make_plan(["v.x"], views=[replace(VIEW, ttl_us=DAY)]),
    "nothing": PLAN,
}


EASY = {"a feature dropped", "a request field dropped", "a request field's type", "a limit of age"}


def build(shop: Shop, plan: FeaturePlan, spec: ModelSpec = SPEC) -> Dataset:
    return shop.training_builder(spec, plan).build()


def trained_on(shop: Shop, plan: FeaturePlan, packages: Path, spec: ModelSpec = SPEC) -> tuple[Dataset, TrainedVersion]:
    dataset = build(shop, plan, spec)
    return dataset, train(dataset, spec, store_at(packages), threads=1, now_us=END)


def accept(shop: Shop, plan: FeaturePlan) -> None:
    for view in plan.views:
        source = shop.root / view.source.path
        if not source.exists():
            shutil.copy(shop.root / "v.parquet", source)
    shop.materialize(END, views=plan.views)


def give_twins(shop: Shop) -> None:
    """Ask half of the rows twice, once with another amount and the other label."""
    rows = shop.read("labels.parquet")
    twins = rows.slice(0, rows.num_rows // 2).set_column(3, "y", pa.array([1] * (rows.num_rows // 2)))
    amounts = pa.array(np.random.default_rng(9).normal(size=twins.num_rows))
    twins = twins.set_column(4, "amount", amounts).cast(rows.schema)
    shop.write("labels.parquet", pa.concat_tables([twins, rows]))


@pytest.mark.parametrize(
    ("change", "mode"),
    [
        # A mode for each change that is hard to tell from others.
        pytest.param(change, mode, marks=[pytest.mark.soak] if change in EASY or (i + j) % 2 else [])
        for i, change in enumerate(CHANGES)
        for j, mode in enumerate(["knowledge", "event_time"])
    ],
)
def test_a_champion_has_the_scores_of_its_own_plan(shop: Shop, tmp_path: Path, change: str, mode: str) -> None:
    give_twins(shop)
    spec = replace(SPEC, time_mode=mode)  # type: ignore[arg-type]
    before, old = trained_on(shop, PLAN, tmp_path, spec)
    plan = CHANGES[change]
    accept(shop, plan)
    dataset = build(shop, plan, spec)
    found = score_version(dataset, spec, store_at(tmp_path), "000001")
    # Twins may stand the other way round where the new plan does not tell them apart.
    rows = [
        set(zip(each.t[each.test].tolist(), each.labels[each.test].tolist(), strict=True)) for each in (before, dataset)
    ]
    assert rows[0] == rows[1]
    same = [
        np.lexsort((scores, each.labels[each.test], each.t[each.test]))
        for scores, each in ((old.scores, before), (found, dataset))
    ]
    assert found[same[1]].tobytes() == old.scores[same[0]].tobytes()


def test_a_label_stays_with_its_vector(shop: Shop, tmp_path: Path) -> None:
    """Rows that the new plan cannot tell apart, and the old one can: each keeps its own label."""
    rows = shop.read("labels.parquet")
    n = rows.num_rows
    amounts = np.random.default_rng(4).normal(size=2 * n)
    twice = pa.concat_tables([rows, rows]).set_column(4, "amount", pa.array(amounts))
    shop.write("labels.parquet", twice.set_column(3, "y", pa.array((amounts > 0).astype(np.int64))))
    _, old = trained_on(shop, PLAN, tmp_path)
    plan = CHANGES["a request field dropped"]
    dataset, new = trained_on(shop, plan, tmp_path)
    spec = replace(SPEC, gate=Gate(tolerance=0.9))
    decision = promote(dataset, spec, old, store_at(tmp_path), END)
    assert decision.promote, decision.reason
    assert old.metrics["auc"] > 0.9
    decision = promote(dataset, spec, new, store_at(tmp_path), END)
    assert decision.champion == old.metrics["auc"]


def test_a_key_that_was_renamed_is_found_by_the_names_of_its_time(shop: Shop, tmp_path: Path) -> None:
    _, old = trained_on(shop, PLAN, tmp_path)
    source = replace(VIEW.source, columns={"card": "id"})
    plan = make_plan(["v.x"], views=[replace(RENAMED, source=source)])
    accept(shop, plan)
    spec = replace(SPEC, labels=replace(label_source(SPEC), columns={"card": "who"}))
    dataset = build(shop, plan, spec)
    assert score_version(dataset, spec, store_at(tmp_path), "000001").tobytes() == old.scores.tobytes()


def refused(shop: Shop, packages: Path, kind: type[SkewlessError], problem: str) -> str:
    """Return the reason of a decision about a new version whose champion cannot be compared."""
    plan = CHANGES["a request field dropped"]
    dataset, new = trained_on(shop, plan, packages)
    with pytest.raises(kind, match=problem):
        score_version(dataset, SPEC, store_at(packages), "000001")
    blind = replace(SPEC, gate=Gate(beat_baseline=False))
    decision = promote(dataset, blind, new, store_at(packages), END)
    assert (decision.promote, decision.champion) == (False, None)
    assert "has no floor or baseline to pass" in decision.reason
    decision = promote(dataset, replace(SPEC, gate=Gate(floor=0.0, beat_baseline=False)), new, store_at(packages), END)
    assert decision.promote
    assert decision.reason.startswith(f"auc {decision.candidate:.4f} reaches the floor 0.0000; the champion cannot be ")
    return decision.reason


@pytest.fixture
def led(shop: Shop, tmp_path: Path) -> Shop:
    """A shop with a champion of ``PLAN``."""
    dataset, first = trained_on(shop, PLAN, tmp_path)
    assert promote(dataset, replace(SPEC, gate=Gate(beat_baseline=False)), first, store_at(tmp_path), END).promote
    return shop


def test_a_request_field_that_is_gone_is_named(led: Shop, tmp_path: Path) -> None:
    led.write("labels.parquet", led.read("labels.parquet").drop_columns(["amount"]))
    reason = refused(led, tmp_path, SourceError, "no such column")
    assert reason.endswith("label table of model 'm': has no such column (got 'amount')")


def test_a_log_that_is_gone_is_named(led: Shop, tmp_path: Path) -> None:
    plan = make_plan(["slow.n"], views=[SLOW])
    shutil.rmtree(led.state / "log" / VIEW.partition)
    dataset = build(led, plan)
    with pytest.raises(StoreError, match=r"log file .*/v-.*: is missing"):
        score_version(dataset, SPEC, store_at(tmp_path), "000001")


def test_an_altered_package_is_named(led: Shop, tmp_path: Path) -> None:
    (tmp_path / "m/000001/metrics.json").write_text("{}")
    assert "000001" in refused(led, tmp_path, SkewlessError, "metrics")


def test_a_label_table_that_changes_meanwhile_is_no_evidence(led: Shop, tmp_path: Path) -> None:
    dataset = build(led, CHANGES["a request field dropped"])
    rows = led.read("labels.parquet")
    led.write("labels.parquet", rows.slice(0, rows.num_rows - 20))
    with pytest.raises(SourceError, match="has changed"):
        score_version(dataset, SPEC, store_at(tmp_path), "000001")
