"""A stream world with a model that decides its events, and the oracle of its decisions in plain Python."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any

import duckdb
import lightgbm
import numpy as np
import pyarrow.parquet as pq

from skewless.contract.bounds import Bounds
from skewless.contract.columns import FeatureRef
from skewless.contract.decisions import DecisionStream
from skewless.contract.dtypes import DType
from skewless.contract.labels import LabelSource
from skewless.contract.plan import FeaturePlan, Service
from skewless.contract.policy import Policy
from skewless.contract.settings import Settings
from skewless.contract.spec import LogPolicy, MissingPolicy, ModelSpec, Split
from skewless.contract.windows.view import Aggregate, Function, WindowView
from skewless.infra.definitions.plans.needed_views import CHAMPION
from skewless.infra.ingest.streams.decider import EventDecider
from skewless.infra.ingest.streams.streams import Streams
from skewless.infra.log.catalog import log_partitions
from skewless.infra.log.log_columns import EVENT, INGEST, REJECT, SEQ
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.models.packages.package import PackageContents, pin_plan
from skewless.infra.models.packages.store import PackageStore
from skewless.infra.models.packages.writer import write_package
from skewless.infra.models.runtimes.certification import Reference
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.reads.offline.engine import connect
from skewless.infra.reads.offline.views import OfflineViews
from skewless.infra.reads.online.port import OnlineStore
from skewless.infra.records.predictions.ids import decision_ids
from skewless.infra.records.predictions.reader import PredictionLog
from skewless.infra.records.predictions.segments import prediction_files
from skewless.serving.metrics.metrics import Metrics
from skewless.validation.replay import replay_log
from skewless.validation.replay_report import ReplayReport
from skewless_decisions.opening import Deciders
from tests.windows.log import bits, signed
from tests.windows.oracle import Event, counts_by, features
from tests.worlds.plans import columns
from tests.worlds.streams import SOURCE, StreamWorld, event_of

MODEL = "m"
SECOND = 1_000_000
ALL = DecisionStream(name="all", source=SOURCE.name, model=MODEL)


def _aggregate(name: str, function: Function, column: str, window: int, place: int = 1) -> Aggregate:
    hop = 5 * SECOND
    return Aggregate(name=name, column=column, function=function, window_us=window * SECOND, hop_us=hop, place=place)


def _view(name: str, *aggregates: Aggregate) -> WindowView:
    return WindowView(
        name=name,
        keys=columns({"id": DType.INT64}),
        source=SOURCE.name,
        event_column="ts",
        inputs=columns({"x": DType.FLOAT64, "s": DType.STRING, "ts": DType.TIMESTAMP}),
        aggregates=aggregates,
        transform=None,
        filter=None,
        scales={"x": 3},
        sketch_size=16,
    )


VIEW = _view(
    "v",
    _aggregate("n_20", Function.COUNT, "ts", 20),
    _aggregate("last_20", Function.LAST, "x", 20),
    _aggregate("kinds_90", Function.COUNT_DISTINCT, "s", 90),
)
# Without sketches, so that its states are merged in another way.
PLAIN = _view(
    "w",
    _aggregate("n_90", Function.COUNT, "ts", 90),
    _aggregate("sum_90", Function.SUM, "x", 90),
    _aggregate("std_90", Function.STD, "x", 90),
    _aggregate("min_20", Function.MIN, "x", 20),
    _aggregate("last_90_2", Function.LAST, "x", 90, 2),
    _aggregate("first_20", Function.FIRST, "x", 20),
)


# Read together with the other.
TWIN = replace(PLAIN, name="twin")


@dataclass
class DecidingWorld(StreamWorld):
    """One project whose events a model decides."""

    views: tuple[WindowView, ...] = (VIEW, PLAIN, TWIN)
    decisions: tuple[DecisionStream, ...] = (ALL,)
    missing: MissingPolicy = "null"
    log: LogPolicy = "best_effort"
    policy: Policy | None = None
    bounds: Bounds | None = None  # of values that the model refuses
    state_folder: str = ""
    broker_url: str | None = None
    metrics: Metrics = field(default_factory=Metrics)
    replayed: ReplayReport = field(init=False)  # of the decisions that were checked last

    @property
    def plan(self) -> FeaturePlan:
        named = [FeatureRef(group=view.name, name=item.name) for view in self.views for item in view.aggregates]
        return FeaturePlan(
            project=self.root.name,
            views=(),
            request=columns({"x": DType.FLOAT64}),
            transforms=(),
            services=(Service(name="svc", features=(*named, FeatureRef(group="request", name="x"))),),
            windows=self.views,
            sources=(self.source,),
        )

    @property
    def state(self) -> ProjectState:
        return self.addresses.state(self.root / self.state_folder)

    def streams(self, connection: duckdb.DuckDBPyConnection | None = None, settings: Settings | None = None) -> Streams:
        return super().streams(connection, settings or Settings(stream_url=self.broker_url))

    @property
    def packages(self) -> PackageStore:
        return PackageStore.of(self.state, Settings())

    @cached_property
    def booster(self) -> lightgbm.Booster:
        """The model, as its library has it."""
        width = len(self.plan.service("svc").features)
        random = np.random.default_rng(7)
        rows, labels = random.normal(1, 3, (300, width)), random.integers(0, 2, 300)
        rows[random.random(rows.shape) < 0.1] = np.nan
        params = {"objective": "binary", "num_leaves": 6, "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
        return lightgbm.train(params, lightgbm.Dataset(rows, labels), num_boost_round=5)

    def publish(self) -> str:
        """Write the model's package, and make it the champion; return its version."""
        plan, random = self.plan.select_service("svc"), np.random.default_rng(8)
        rows = random.normal(1, 3, (40, len(plan.services[0].features)))
        contents = PackageContents(
            model_name="model.txt",
            model=self.booster.model_to_string().encode(),
            spec=ModelSpec(
                name=MODEL,
                service="svc",
                labels=LabelSource(path="l", event_time="e", known_time="k", label="y"),
                algorithm="lightgbm",
                split=Split(test=timedelta(days=1)),
                missing=self.missing,
                log=self.log,
                policy=self.policy,
                bounds="refuse",
            ),
            plan=pin_plan(plan, {}),
            reference=Reference(rows, self.raw(rows), self.score(rows)),
            profile={},
            metrics={},
            fingerprint={},
            bounds=self.bounds.as_dict() if self.bounds else {},
        )
        store = self.packages
        package, held = write_package(store, MODEL, contents), store.aliases.get(MODEL, CHAMPION)
        store.aliases.move(MODEL, CHAMPION, expect=held, to=package.version, reason="", now_us=self.clock.now_us())
        return package.version

    def raw(self, rows: Any) -> Any:  # noqa: ANN401 - of the library
        return self.booster.predict(rows, raw_score=True, num_threads=1)

    def score(self, rows: Any) -> Any:  # noqa: ANN401 - of the library
        return self.booster.predict(rows, num_threads=1)

    @contextmanager
    def deciders(self) -> Iterator[Deciders]:
        """Open the deciders of one process, which deliver."""
        with connect(self.root / "spill", threads=1) as connection, self.store() as store:
            deciders = Deciders(streams=self.streams(connection), store=self.packages, metrics=self.metrics)
            deciders.load(self.plan, self.decisions, store)
            try:
                yield deciders
            finally:
                deciders.close()

    @contextmanager
    def deciding(self, store: OnlineStore) -> Iterator[EventDecider]:
        """Open a decider; a worker that gets it closes it."""
        with self.deciders() as deciders:
            decider = deciders.open(self.plan, self.source, self.decisions, store)
            assert decider is not None
            yield decider

    def log_rows(self, stream: str = ALL.name) -> list[dict[str, Any]]:
        """Return the decisions of a stream, in the order of the prediction log, without those of shadows."""
        rows = (row for row in self._rows() if row["event"] is not None)
        return [row for row in rows if row["event"]["stream"] == stream and row["role"] != "shadow"]

    def shadow_rows(self) -> list[dict[str, Any]]:
        """Return the scores of shadows, in the order of the prediction log."""
        return [row for row in self._rows() if row["role"] == "shadow"]

    def _rows(self) -> list[dict[str, Any]]:
        return [row for path in prediction_files(self.state) for row in pq.read_table(path).to_pylist()]

    def replay(self) -> ReplayReport:
        with connect(self.root / "spill", threads=1) as connection:
            views = OfflineViews(self.state, connection)
            return replay_log(PredictionLog(self.state, connection), views=views, store=self.packages)

    def check_decisions(
        self,
        stream: str = ALL.name,
        meets: Callable[[dict[str, Any], bool], bool] = lambda _event, _late: True,
    ) -> int:
        """Assert what a stream has decided, event by event, and replay's proof of it; return how many decisions.

        Args:
            meets: whether an event, and whether it is late, is decided.
        """
        rows = self.log_rows(stream)
        by_event = {(row["event"]["partition"], row["event"]["seq"]): row for row in rows}
        assert len(by_event) == len(rows), "an event was decided twice"
        expected = {(name, row[SEQ]): (row, t, late) for name, row, t, late in self.timed_events() if meets(row, late)}
        assert by_event.keys() == expected.keys(), "an event was not decided, or must not have been"
        events: dict[int, list[Event]] = {}
        for name, row, _, _ in self.timed_events():
            events.setdefault(row["id"], []).append(event_of(name, row))
        for (partition, seq), row in by_event.items():
            event, t, late = expected[partition, seq]
            self._check_decision(row, partition, event, t, late=late, events=events[event["id"]])
        report = self.replayed = self.replay()
        assert report.ok, report.lines()
        assert report.compared >= len(rows)
        assert {gap.rows for gap in report.training.values()} == {report.compared}, "not compared with training"
        return len(rows)

    def count_gap(self, *, knows: bool) -> int:
        """Return how many decisions have another vector than their training row, by brute force.

        Args:
            knows: training knows what the log had accepted by t; otherwise, all that it has now.
        """
        events = [
            replace(event_of(name, row), known=row[INGEST] if knows else row[EVENT])
            for name, row, _, _ in self.timed_events()
        ]
        return sum(
            bits(row["vector"][:-1])
            != bits([value for view in self.views for value in self._trained(view, events, row)])
            for row in self._rows()
        )

    @staticmethod
    def _trained(view: WindowView, events: Sequence[Event], row: dict[str, Any]) -> list[float | None]:
        key, counted = json.loads(row["inputs"])["id"], counts_by(row["t"])
        return features(view, [event for event in events if event.key == (key,) and counted(event)], row["t"])

    def _check_decision(
        self, row: dict[str, Any], partition: str, event: dict[str, Any], t: int, *, late: bool, events: Sequence[Event]
    ) -> None:
        seq, stream = event[SEQ], row["event"]["stream"]
        assert (row["t"], row["event"]["late"], row["event"]["event_ts"]) == (t, late, event[EVENT])
        assert [row["id"]] == decision_ids(stream, partition, [seq], [t])
        vector: list[float | None] = []
        for view, read in zip(self.views, row["reads"], strict=True):
            applied = {slot["partition"]: slot["seq"] for slot in read["applied"] or ()}
            before = [
                item
                for item in events
                if (
                    item.seq < seq
                    if item.partition == signed(partition)
                    else item.seq <= applied.get(item.partition, -1)
                )
            ]
            vector += features(view, before, t)
        vector.append(event["x"])
        assert bits(row["vector"]) == bits(vector), (row["id"], row["vector"], vector)
        numbers = np.array([[math.nan if value is None else value for value in vector]])
        assert row["score"] == self.score(numbers)[0]

    def timed_events(self) -> Iterator[tuple[str, dict[str, Any], int, bool]]:
        """Yield the accepted events with the times for which they are decided, from the words of SEMANTICS 9.1."""
        for name in log_partitions(self.state, self.source.name):
            newest = None
            for part in PartitionLog(self.state, name).read():
                for row in part.to_pylist():
                    if row[REJECT] is not None:
                        continue
                    late = newest is not None and row[EVENT] < newest - 2 * SECOND
                    t = (row[INGEST] if late else row[EVENT]) // 1_000 * 1_000
                    newest = row[EVENT] if newest is None else max(newest, row[EVENT])
                    yield name, row, t, late
