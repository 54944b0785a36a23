"""A project whose predictions get outcomes days later, and the same labels as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless.contract.feedback import parse_feedback
from skewless.contract.labels import AnyLabels, LabelSource, Outcomes
from skewless.contract.spec import ModelSpec
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.reads.offline.labels import label_source
from skewless.infra.records.outcomes.label_rows import resolve_labels
from skewless.infra.records.outcomes.log import OutcomeWriter, outcome_spool
from skewless.operations.models.quality import labelled_log
from skewless.training.dataset import Dataset
from tests.worlds.trained import MODEL, SECOND, Row, Sandbox, ask, opened_copy

DAY = 86_400
TABLE = "data/loop.parquet"


@dataclass(kw_only=True)
class Loop:
    """Predictions of some days, and what became of each."""

    place: Sandbox
    ids: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    known: list[int | None] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    actions: list[str | None] = field(default_factory=list)
    first: ModelSpec = field(init=False)

    def __post_init__(self) -> None:
        self.first = self.place.project.applied.model(MODEL)

    def predict(self, days: int, each: int = 30, *, outcomes: bool = False, model: ServedModel | None = None) -> None:
        """Predict once a day; the request says the time of the prediction, as that of its label.

        Args:
            outcomes: whether the outcomes of each day arrive two days later; those of the last day do not.
        """
        for day in range(days):
            now = self.place.now_us() // 1_000 * 1_000
            rows = [row | {"paid_at": now} for row in ask(each, first=7 * (day % 3))]
            answer = self.place.predict(rows, model=model)
            self.scores += answer.scores.tolist()
            self.actions += answer.decisions or [None] * each
            self.ids += answer.ids
            self.rows += rows
            self.times += [answer.t] * each
            self.place.wait(DAY)
            if outcomes and day:
                first, labels = len(self.ids) - 2 * each, self.labels
                known = self.say(*(self.outcome(i, labels[i]) for i in range(first, first + each)))
                self.known += [known] * each

    @property
    def labels(self) -> list[float]:
        """Return what is true: large payments are bad, with noise."""
        noise = np.random.default_rng(5).normal(size=100_000)[: len(self.rows)]
        amounts = np.array([row["amount"] for row in self.rows])
        return [float(bad) for bad in amounts / 40 + 0.3 * noise > 0.8]

    def outcome(self, i: int, label: float | None, **said: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Return feedback about a prediction."""
        return {"prediction_id": self.ids[i], "label": label, **said}

    def say(self, *rows: dict[str, Any]) -> int:
        """Append feedback as the server does, and return the time of the clock at which it arrived."""
        plan, now = self.place.project.applied.plan.select_service("fraud_features"), self.place.now_us()
        outcomes = parse_feedback(rows, lambda _: plan, now, 100_000)
        OutcomeWriter(outcome_spool(self.place.project.state)).append(outcomes, received_at=now, source="test")
        return now

    def write_table(self, known: list[int | None], labels: list[float], name: str = TABLE) -> LabelSource:
        """Write the label table that says the same as outcomes that arrived at these times."""
        time = pa.timestamp("us", tz="UTC")
        schema = pq.read_schema(self.place.repo / "data/payments.parquet").append(pa.field("asked_at", time))
        columns: dict[str, Any] = {name: [row[name] for row in self.rows] for name in self.rows[0]}
        columns |= {"known_at": known, "fraud": labels, "asked_at": self.times}
        arrays = [
            pa.array(columns[item.name], pa.int64()).cast(item.type)
            if pa.types.is_timestamp(item.type)
            else pa.array(columns[item.name]).cast(item.type)
            for item in schema
        ]
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), self.place.repo / name)
        return LabelSource(path=name, event_time="asked_at", known_time="known_at", label="fraud")

    def use(self, labels: AnyLabels, **fields: Any) -> ModelSpec:  # noqa: ANN401 - of the spec
        """Let the model have other labels than those of the plan."""
        applied = self.place.project.applied
        spec = replace(applied.model(MODEL), labels=labels, **fields)
        self.place.project.__dict__["applied"] = replace(applied, models=(spec,))
        self.place.project.__dict__.pop("checks", None)
        return spec

    def label_rows(self, labels: Outcomes, **fields: Any) -> tuple[dict[str | None, Row], Mapping[str, int]]:  # noqa: ANN401 - of the spec
        """Return the label rows by prediction (those of the table's own together under None), and their counts."""
        self.use(labels, **fields)
        resolved = resolve_labels(labelled_log(self.place.project, MODEL), self.place.now_us())
        source = label_source(resolved.spec)
        rows = pq.read_table(source.path).rename_columns({source.label: "outcome_label"}).to_pylist()
        return {row["outcome_prediction"]: row for row in rows}, resolved.counts

    def dataset(self, labels: AnyLabels, **fields: Any) -> Dataset:  # noqa: ANN401 - of the spec
        self.use(labels, **fields)
        return self.place.project.training_set(MODEL)


@pytest.fixture
def outcome_loop(trained: Path, tmp_path: Path) -> Iterator[Loop]:
    with opened_copy(trained, tmp_path / "p") as place:
        yield Loop(place=place)


def microseconds(days: float) -> int:
    return int(days * DAY * SECOND)
