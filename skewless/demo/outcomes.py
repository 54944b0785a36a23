"""Outcomes of the test period: sent as they become known, and then trained from, without the label table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from skewless.client import Client
from skewless.contract.dtypes import DType
from skewless.contract.errors import SourceError
from skewless.contract.labels import LabelSource, Outcomes
from skewless.contract.spec import ModelSpec, Split
from skewless.demo.tour_state import TourState
from skewless.infra.offline.labels import KNOWN, LABEL
from skewless.training.dataset import Dataset, build_dataset
from skewless.training.promotion import judge
from skewless.training.quality import quality_lines
from skewless.training.train import find_trainer, train

_TIME = pa.timestamp("us", tz="UTC")
_MOST = 5_000  # outcomes of a request


@dataclass(kw_only=True)
class SentOutcomes:
    """The outcomes of the predictions of one model.

    Args:
        rows: label rows, in the order of their predictions.
        ids: of the predictions.
        times: of the predictions, microseconds.
        sent: numbers of the rows whose outcome was sent.
    """

    rows: pa.Table
    ids: list[str] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    sent: set[int] = field(default_factory=set)

    def add(self, ids: Sequence[str], t_us: int) -> None:
        """Add the predictions of the next rows."""
        self.ids += ids
        self.times += [t_us] * len(ids)

    def send(self, client: Client, now_us: int) -> None:
        """Send the outcomes that have become known."""
        known, labels = (self.rows[name].slice(0, len(self.ids)).to_pylist() for name in (KNOWN, LABEL))
        due = [
            i
            for i, at_us in enumerate(known)
            if i not in self.sent and at_us is not None and at_us <= now_us and labels[i] is not None
        ]
        for first in range(0, len(due), _MOST):
            part = due[first : first + _MOST]
            client.feedback([{"prediction_id": self.ids[i], "label": labels[i], "known_at": known[i]} for i in part])
        self.sent.update(due)


def learn_from_outcomes(tour: TourState, outcomes: SentOutcomes) -> None:
    """Train the next version of the first model from the outcomes of its own predictions, and from a table of them.

    The version is judged, and not promoted.
    """
    spec = tour.served[0]
    with tour.stage("Outcomes -> the next version, without the label table") as print_line:
        print_line(f"{len(outcomes.sent):,} of {len(outcomes.ids):,} predictions got their outcome as feedback")
        split = Split(test=spec.split.test / 3)
        own = replace(spec, labels=Outcomes(known="declared"), split=split)
        try:
            dataset = _build(tour, own)
        except SourceError as error:
            print_line(f"not trained: {error}")
            return
        store, now_us = tour.project.store, tour.clock.now_us()
        trained = train(dataset, own, store, threads=tour.project.settings.threads, now_us=now_us)
        for line in quality_lines(trained.metrics):
            print_line(line)
        champion = store.aliases.get(spec.name, "champion")
        decision = judge(dataset, own, trained.scores, store, against=champion)
        verdict = "would be promoted" if decision.promote else "would not be promoted"
        print_line(f"version {trained.package.version} {verdict}: {decision.reason}")
        table = _build(tour, replace(own, labels=_write_table(tour, spec, outcomes)))
        is_equal = dataset.fingerprint == table.fingerprint, _model(own, dataset) == _model(own, table)
        print_line(
            f"a label table of the same predictions: {dataset.counts['used']:,} and {table.counts['used']:,} rows, "
            f"training sets {_same(is_equal[0])}, models {_same(is_equal[1])}"
        )
        tour.facts["loop"] = {
            "rows": dataset.counts["used"],
            "equal_rows": is_equal[0],
            "equal_model": is_equal[1],
            "auc": trained.metrics.get("auc"),
        }


def _same(is_same: bool) -> str:  # noqa: FBT001 - a text of a condition
    return "equal to the last bit" if is_same else "DIFFERENT"


def _build(tour: TourState, spec: ModelSpec) -> Dataset:
    project = tour.project
    return build_dataset(
        connection=project.connection,
        repo=project.repo,
        plan=project.applied.plan,
        spec=spec,
        views=project.views,
        now_us=tour.clock.now_us(),
    )


def _model(spec: ModelSpec, dataset: Dataset) -> bytes:
    trainer = find_trainer(spec.algorithm)
    rows: Any = dataset.training_rows(dataset.train)
    return bytes(trainer.train(rows, spec, None).model)


def _write_table(tour: TourState, spec: ModelSpec, outcomes: SentOutcomes) -> LabelSource:
    """Write the label table that says what the outcomes say."""
    plan, numbers = tour.plan_of(spec), np.array(sorted(outcomes.sent))
    rows = outcomes.rows.take(pa.array(numbers))
    columns = {
        column.name: rows[column.name].cast(_TIME) if column.dtype is DType.TIMESTAMP else rows[column.name]
        for column in (*plan.join_keys, *plan.request)
    }
    horizon = spec.as_dict()["horizon"]
    at = pa.array(np.array(outcomes.times)[numbers] + horizon, pa.int64()).cast(_TIME)
    table = pa.table({**columns, "loop_at": at, "loop_known": rows[KNOWN].cast(_TIME), "loop_label": rows[LABEL]})
    path = Path(tour.project.state / "loop.parquet")
    pq.write_table(table, path)
    return LabelSource(path=str(path), event_time="loop_at", known_time="loop_known", label="loop_label")
