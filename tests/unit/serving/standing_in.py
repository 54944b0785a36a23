"""A model and a predictor that stand in for real ones: what the protocol's code looks at, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from skewless.contract.bounds_check import BoundsCheck
from skewless.contract.dtypes import DType
from skewless.contract.errors import SkewlessError
from skewless.contract.labels import LabelSource
from skewless.contract.plan import FeaturePlan
from skewless.contract.policy import ListValues
from skewless.contract.policy_runner import PolicyRunner
from skewless.contract.request import RowParser
from skewless.contract.spec import ModelSpec, Split
from skewless.contract.status import Int64Array
from skewless.infra.models.packages.served_model import ServedModel
from skewless.infra.reads.online.service_vectors import ServiceVectors
from skewless.serving.prediction.routing import ScoringRequest
from skewless.serving.prediction.scored_batch import Extra, ScoredBatch, ScoredSlice
from skewless.serving.prediction.ticket import SliceCallback
from tests.worlds.plans import make_plan, make_view

REQUEST = {"amount": DType.FLOAT64, "small": DType.FLOAT32, "on": DType.BOOL, "at": DType.TIMESTAMP}
PLAN = make_plan(
    ["v.x", "w.x", "request.amount"], views=[make_view("v"), make_view("w", freshness_us=5)], request=REQUEST
)


@dataclass(eq=False, kw_only=True)
class ModelShape:
    """What the protocol looks at of a model."""

    plan: FeaturePlan = PLAN
    n_outputs: int = 1
    spec: dict[str, Any] = field(default_factory=dict)
    name: str = "m"
    version: str = "000001"
    bounds: BoundsCheck | None = None
    policy: PolicyRunner | None = None
    lists: ListValues = field(default_factory=dict)
    act = ServedModel.act

    @cached_property
    def package(self) -> SimpleNamespace:
        labels = LabelSource(path="p", event_time="e", known_time="k", label="l")
        split = Split(test=timedelta(days=1))
        spec = ModelSpec(name="m", service="s", labels=labels, algorithm="lightgbm", split=split, **self.spec)
        return SimpleNamespace(spec=spec)

    @property
    def runtime(self) -> SimpleNamespace:
        return SimpleNamespace(n_outputs=self.n_outputs)

    @property
    def assembler(self) -> SimpleNamespace:
        return SimpleNamespace(labels=tuple(ref.label for ref in self.plan.services[0].features))

    @cached_property
    def parser(self) -> RowParser:
        return RowParser(self.plan)

    @property
    def freshness_us(self) -> Int64Array:
        return np.array([view.freshness_us for view in self.plan.all_views])


def model(**parts: Any) -> ServedModel:  # noqa: ANN401 - of Model
    return cast("ServedModel", ModelShape(**parts))


def answer(
    of: ServedModel,
    scores: npt.NDArray[np.float64],
    *,
    status: Sequence[Sequence[int]] | None = None,
    event_ts: Sequence[Sequence[int]] | None = None,
    extras: Mapping[str, Extra] | None = None,
    max_age_us: int | None = None,
) -> ScoredSlice:
    """Return an answer at t = 10; without statuses, to vectors."""
    n = len(scores)
    matrix = np.arange(3.0 * n).reshape(n, 3)
    found = None
    if status is not None:
        found = ServiceVectors(
            matrix=matrix,
            status=np.array(status, np.uint8),
            event_ts=np.array(event_ts),
            watermark=np.full(len(status[0]), 10, dtype=np.int64),
            versions={},
            applied={},
        )
    scored = ScoredBatch(
        model=of,
        ids=[f"p-{i}" for i in range(n)],
        t=10,
        scores=scores,
        matrix=matrix,
        vectors=found,
        degraded=False,
        extras=extras or {},
    )
    return ScoredSlice(scored, 0, n, max_age_us)


@dataclass(kw_only=True)
class Predictor:
    """Answers every question at once with 0.5, or with an error."""

    error: SkewlessError | None = None
    asked: list[ScoringRequest] = field(default_factory=list)
    limits: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(max_batch=10))

    def submit(self, question: ScoringRequest, done: SliceCallback) -> None:
        self.asked.append(question)
        if self.error is not None:
            done(self.error)
            return
        zeros: Mapping[str, Extra] = {
            "contributions": np.zeros((question.n, 4)),
            "leaves": np.zeros((question.n, 2), dtype=np.int32),
        }
        extras = {name: zeros[name] for name in question.options.extras}
        done(answer(question.model, np.full(question.n, 0.5), extras=extras))
