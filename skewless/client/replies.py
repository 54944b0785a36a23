"""Replies of a server as objects; ``raw`` has the complete JSON, also fields that this client does not know."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplyView:
    """Read of one view for one row.

    Args:
        status: name of a ``skewless.contract.status.Status``.
        age_s: age of the row, seconds; None: no row exists.
        stale: whether the age exceeds the freshness limit.
    """

    status: str
    age_s: float | None
    stale: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """Prediction for one row.

    Args:
        id: prediction id in the log.
        score: float64; the largest of several outputs; NaN if JSON has no number.
        scores: all outputs of a model with several; otherwise empty.
        version: version that served the row, if several versions served the request; otherwise None.
        decision: decision by the thresholds in the model's spec; None: the model has no decisions.
        reasons: codes of the policy's reasons; empty: there are none.
        explored: whether the row explores; its decision is then that of exploration, also if the score gives the same.
        features: feature values; None is missing. Empty unless requested.
        views: status and age by view. Empty unless features were requested.
        contributions: by feature, and ``bias``; for several outputs each is a list. Empty unless requested.
        leaves: the index of the leaf in each tree, in the order of training. Empty unless requested.
        raw: the JSON.
    """

    id: str
    score: float
    scores: tuple[float, ...]
    version: str | None
    decision: str | None
    reasons: tuple[str, ...]
    explored: bool
    features: Mapping[str, float | None]
    views: Mapping[str, ReplyView]
    contributions: Mapping[str, float | Sequence[float]]
    leaves: tuple[int, ...]
    raw: Json = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """Predictions for the rows of one request, in their order.

    Args:
        model: name of the model.
        version: its version; None: several versions served the request, see each prediction.
        t_us: evaluation time of all rows, microseconds since the epoch, UTC.
        log: ``required``: the log row is durable; ``best_effort``: it will be written.
        degraded: whether the online store did not answer in time, so that features were missing.
        predictions: one for each row.
        raw: the JSON.
    """

    model: str
    version: str | None
    t_us: int
    log: str
    degraded: bool
    predictions: tuple[Prediction, ...]
    raw: Json = field(repr=False)

    def __len__(self) -> int:
        return len(self.predictions)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.predictions)

    @property
    def t(self) -> datetime:
        """Return the evaluation time, with its time zone."""
        return datetime.fromisoformat(self.raw["t"])

    @property
    def scores(self) -> list[float]:
        """Return the score of each row."""
        return [item.score for item in self.predictions]


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A served model, with its features in order; ``raw`` has inputs, metrics, runtime and everything else."""

    name: str
    version: str
    features: tuple[str, ...]
    raw: Json = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Models:
    """The served models, and for each model the reason why a newer version is not served."""

    models: tuple[Model, ...]
    refused: Mapping[str, Any]
    raw: Json = field(repr=False)

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models)


@dataclass(frozen=True, kw_only=True, slots=True)
class Readiness:
    """Whether the server is ready, and the reasons if not; reason ``server``: the server is unreachable.

    Args:
        details: problems that do not make it unready, such as ``database``.
    """

    ready: bool
    reasons: Mapping[str, str]
    details: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.ready


def read_reply(data: Json) -> Reply:
    """Return the reply to ``POST /predict``."""
    return Reply(
        model=data["model"],
        version=data["version"],
        t_us=data["t_us"],
        log=data["log"],
        degraded=data["degraded"],
        predictions=tuple(map(read_prediction, data["predictions"])),
        raw=data,
    )


def read_prediction(data: Json) -> Prediction:
    """Return one item of ``predictions``."""
    return Prediction(
        id=data["id"],
        score=_number(data["score"]),
        scores=tuple(map(_number, data.get("scores") or ())),
        version=data.get("version"),
        decision=data.get("decision"),
        reasons=tuple(data.get("reasons") or ()),
        explored=bool(data.get("explored")),
        features={
            name: None if value is None else _number(value) for name, value in (data.get("features") or {}).items()
        },
        views={name: _read_view(view) for name, view in (data.get("views") or {}).items()},
        contributions=data.get("contributions") or {},
        leaves=tuple(data.get("leaves") or ()),
        raw=data,
    )


def _number(value: float | str | None) -> float:
    # JSON has no infinities: they are strings.
    return math.nan if value is None else float(value)


def _read_view(data: Json) -> ReplyView:
    return ReplyView(status=data["status"], age_s=data.get("age_s"), stale=bool(data.get("stale")))


def read_model(data: Json) -> Model:
    """Return the reply to ``GET /models/{name}``."""
    return Model(name=data["model"], version=data["version"], features=tuple(data.get("features") or ()), raw=data)


def read_models(data: Json) -> Models:
    """Return the reply to ``GET /models``."""
    models = tuple(map(read_model, data["models"]))
    return Models(models=models, refused=data.get("refused") or {}, raw=data)


def read_readiness(data: Json) -> Readiness:
    """Return the reply to ``GET /health/ready``."""
    ready, reasons = bool(data["ready"]), data.get("reasons") or {}
    return Readiness(ready=ready, reasons=reasons, details=data.get("details") or {})
