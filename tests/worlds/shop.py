"""A small project of two views with late rows and corrections, and a label table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.contract.dtypes import DType
from skewless.contract.labels import LabelSource
from skewless.contract.plan import FeaturePlan, View
from skewless.contract.spec import ModelSpec, Split
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.views import OfflineViews
from skewless.training.dataset import Dataset
from skewless.training.stored_dataset import TrainingDataBuilder
from tests.worlds.addresses import ProjectAddresses
from tests.worlds.latest import LatestWorld, times
from tests.worlds.plans import make_plan, make_transform, make_view

DAY = 86_400_000_000
HORIZON = 7_200_000_000
END = 40 * DAY
VIEW = make_view(features={"x": DType.FLOAT64, "s": DType.STRING}, ttl_us=10 * DAY, tombstone="gone")
SLOW = make_view("slow", path="slow.parquet", created=None, features={"n": DType.INT64}, delay_us=DAY)
RATIO = make_transform(
    "import numpy as np\ndef f(inputs):\n"
    "    with np.errstate(all='ignore'):\n        return {'out': inputs['x'] / inputs['n'] + inputs['amount']}\n",
    ["v.x", "slow.n", "request.amount"],
)
PLAN = make_plan(
    ["v.x", "v.s", "slow.n", "made.out"], views=[VIEW, SLOW], request={"amount": DType.FLOAT64}, transforms=[RATIO]
)
SPEC = ModelSpec(
    name="m",
    service="s",
    labels=LabelSource(path="labels.parquet", event_time="at", known_time="known", label="y", columns={"id": "who"}),
    algorithm="lightgbm",
    split=Split(test=timedelta(days=8), embargo=timedelta(days=2)),
    horizon=timedelta(hours=2),
)


@dataclass(kw_only=True)
class Shop(LatestWorld):
    """A project of its own, filled by one run every ten days."""

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        assert self.opened is not None
        return self.opened

    def materialize(self, *moments: int, views: Sequence[View] = PLAN.views) -> None:
        for moment in moments:
            self.clock.set(moment)
            self.run(*views)

    def dataset(self, spec: ModelSpec = SPEC, now_us: int = END) -> Dataset:
        return self.training_builder(spec, now_us=now_us).build()

    def training_builder(
        self,
        spec: ModelSpec = SPEC,
        plan: FeaturePlan = PLAN,
        *,
        now_us: int = END,
        views: OfflineViews | None = None,
    ) -> TrainingDataBuilder:
        return TrainingDataBuilder(
            connection=self.connection,
            repo=self.root,
            plan=plan,
            spec=spec,
            views=views or OfflineViews(self.project_state, self.connection),
            now_us=now_us,
        )

    def read(self, name: str) -> pa.Table:
        return pq.read_table(self.root / name)


def view_table(rng: np.random.Generator, n: int) -> pa.Table:
    """Return rows with late ones, corrections of a few moments, nulls and deletions."""
    event = rng.integers(0, 40, n) * DAY
    return pa.table(
        {
            "id": rng.integers(0, 8, n),
            "event": times(*event),
            "created": times(*(event + rng.integers(0, 3 * DAY, n))),
            "x": pa.array(rng.normal(size=n), mask=rng.random(n) < 0.1),
            "s": pa.array(rng.choice(["a", "b", "c"], n)),
            "gone": rng.random(n) < 0.05,
        }
    )


def label_table(rng: np.random.Generator, n: int) -> pa.Table:
    """Return questions whose answer is chance, but the likelier the greater the amount is."""
    at = np.sort(rng.integers(HORIZON, END, n))
    amount = rng.normal(size=n)
    return pa.table(
        {
            "who": pa.array(rng.integers(0, 9, n), mask=rng.random(n) < 0.05),
            "at": times(*at),
            "known": pa.array(at + rng.integers(0, 3 * DAY, n), mask=rng.random(n) < 0.05).cast(
                pa.timestamp("us", tz="UTC")
            ),
            "y": pa.array((amount + 0.5 * rng.normal(size=n) > 0).astype(np.int64), mask=rng.random(n) < 0.1),
            "amount": amount,
        }
    )


@contextmanager
def open_shop(folder: Path, fewest: int = 0, addresses: ProjectAddresses | None = None) -> Iterator[Shop]:
    """A filled shop below a folder; ``fewest`` is the least of ``slow.n``, by which its ratio divides."""
    rng = np.random.default_rng(3)
    with connect(folder / "spill", threads=1) as connection:
        one = Shop(root=folder / "shop", opened=connection, addresses=addresses or ProjectAddresses())
        one.root.mkdir()
        one.write("v.parquet", view_table(rng, 400))
        slow = {
            "id": rng.integers(0, 8, 60),
            "event": times(*(rng.integers(0, 40, 60) * DAY)),
            "n": rng.integers(fewest, 9, 60),
        }
        one.write("slow.parquet", pa.table(slow))
        one.write("labels.parquet", label_table(rng, 500))
        one.materialize(*(day * DAY for day in (10, 20, 30, 40)))
        yield one
