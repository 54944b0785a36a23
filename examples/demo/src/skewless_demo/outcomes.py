"""Outcomes of the test period: sent as they become known, trained from by the scheduler, and compared with a table."""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from skewless.client import Client
from skewless.contract.dtypes import DType
from skewless.contract.labels import LabelSource
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.infra.models.packages.package import open_package
from skewless.infra.reads.offline.as_of import TIME
from skewless.infra.reads.offline.labels import KNOWN, LABEL, read_labels, table_spec
from skewless.training.quality import measure, quality_lines
from skewless.training.stored_matrix import score_rows
from skewless.training.train import find_trainer
from skewless_demo.tour_state import TourState

_TIME = pa.timestamp("us", tz="UTC")
_MOST = 5_000  # outcomes of a request


@dataclass(kw_only=True)
class SentOutcomes:
    """The outcomes of the predictions of one model.

    Args:
        spec: of the model.
        plan: the part of the plan that it needs.
        rows: label rows of the test period.
        ids: of the predictions, by the number of the label row.
        times: of the predictions, microseconds, likewise.
        sent: numbers of the rows whose outcome was sent.
    """

    spec: ModelSpec
    plan: FeaturePlan
    rows: pa.Table
    ids: dict[int, str] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    _waiting: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Prepare the labels with their known times."""
        self.names = [column.name for column in (*self.plan.join_keys, *self.plan.request)]
        self._known, self._labels = self.rows[KNOWN].to_pylist(), self.rows[LABEL].to_pylist()

    def add(self, numbers: Iterable[int], ids: Sequence[str], t_us: int) -> None:
        """Add the predictions of some rows."""
        for number, each in zip(numbers, ids, strict=True):
            self.ids[number], self.times[number] = each, t_us
            if self._known[number] is not None and self._labels[number] is not None:
                heapq.heappush(self._waiting, (self._known[number], number))

    def send(self, client: Client, now_us: int) -> None:
        """Send the outcomes that have become known."""
        due = []
        while self._waiting and self._waiting[0][0] <= now_us:
            due.append(heapq.heappop(self._waiting))
        for first in range(0, len(due), _MOST):
            part = due[first : first + _MOST]
            client.feedback(
                [{"prediction_id": self.ids[i], "label": self._labels[i], "known_at": known} for known, i in part]
            )
            self.sent += [i for _, i in part]


def compare_with_table(tour: TourState, outcomes: SentOutcomes) -> None:
    """Train again what the scheduler has just trained from outcomes, from a label table that says the same."""
    spec, store = outcomes.spec, tour.project.store
    with tour.stage(f"{spec.name} from outcomes, and from a label table that says the same") as print_line:
        package = open_package(store, spec.name, store.packages.list_versions(spec.name)[-1])
        counts = package.fingerprint["counts"]
        if "predictions" not in counts:
            print_line("the scheduler did not train it from outcomes")
            return
        print_line(
            f"the scheduler trained {package.version} on {counts['used']:,} label rows:"
            f" {counts['predictions'] - counts['without_outcome']:,} of {counts['predictions']:,} predictions had an"
            " outcome, the other rows are those of earlier flights"
        )
        builder = tour.project.training_builder(replace(spec, labels=_write_table(tour, outcomes)))
        table = replace(builder, now_us=package.about["as_of_us"]).build()
        rows: Any = table.training_rows(table.train)
        threads = tour.project.settings.threads or os.cpu_count() or 1
        model = find_trainer(spec.algorithm, threads).train(rows, spec, None)
        metrics = measure(table, spec, score_rows(model.score, table.select(table.test)))
        equal = {
            "rows": table.fingerprint == package.fingerprint["dataset"],
            "model": bytes(model.model) == package.model_file.read_bytes(),
            "quality": json.loads(json.dumps(metrics)) == package.metrics,
        }
        same = ", ".join(f"{name} {'equal' if is_equal else 'DIFFERENT'}" for name, is_equal in equal.items())
        print_line(f"a label table gives {table.counts['used']:,} rows; to the last bit: {same}")
        for line in quality_lines(metrics):
            print_line(line)
        tour.facts.setdefault("loop", {})[spec.name] = {
            "rows": len(outcomes.sent),
            "used": counts["used"],
            **{f"equal_{name}": is_equal for name, is_equal in equal.items()},
            "auc": package.metrics.get("auc"),
        }


def _write_table(tour: TourState, outcomes: SentOutcomes) -> LabelSource:
    """Write a label table with the rows before the test period, and those whose outcomes were sent."""
    spec, plan, project = outcomes.spec, outcomes.plan, tour.project
    numbers = np.array(sorted(outcomes.sent), dtype=np.int64)
    times = np.array([outcomes.times[number] for number in numbers.tolist()], dtype=np.int64)
    rows = outcomes.rows.take(pa.array(numbers))
    # A label is not known before its prediction: a departure may be reported after the flight has landed.
    known = pc.max_element_wise(rows[KNOWN], pa.array(times))
    for name, column in ((TIME, pa.array(times)), (KNOWN, known)):
        rows = rows.set_column(rows.column_names.index(name), name, column)
    table = table_spec(spec)
    if table is not None:
        earlier = read_labels(project.connection, project.repo, plan, table)
        begin = pc.min(outcomes.rows[TIME])
        rows = pa.concat_tables([earlier.filter(pc.less(earlier[TIME], begin)), rows])
    columns = {
        column.name: rows[column.name].cast(_TIME) if column.dtype is DType.TIMESTAMP else rows[column.name]
        for column in (*plan.join_keys, *plan.request)
    }
    at = pc.add(rows[TIME], pa.scalar(spec.as_dict()["horizon"], pa.int64())).cast(_TIME)
    path = Path(project.state / "loop.parquet")
    written = {**columns, "loop_at": at, "loop_known": rows[KNOWN].cast(_TIME), "loop_label": rows[LABEL]}
    pq.write_table(pa.table(written), path)
    return LabelSource(path=str(path), event_time="loop_at", known_time="loop_known", label="loop_label")
