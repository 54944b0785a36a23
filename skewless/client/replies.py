"""What a server answers, as objects; fields that this client does not know yet stand in ``raw``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplyView:
    """What was read of one view for one row.

    Args:
        status: the name of a ``skewless.contract.status.Status``.
        age_s: age of the row read, seconds; None: none was found.
        stale: whether the age is beyond the freshness limit.
    """

    status: str
    age_s: float | None
    stale: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The answer to one row.

    Args:
        id: the prediction's name in the log.
        score: float64, of several outputs the greatest; NaN where JSON cannot write it.
        scores: one for each output, for a model that has several; else empty.
        version: of the model that answered, where several versions answered one request; else None.
        decision: what the thresholds of the model's spec make of it; None: it has none.
        features: what the model saw, by feature; None is its missing value. Empty unless asked for.
        views: what was read, by view. Empty unless features were asked for.
        contributions: per feature, and under ``bias`` the rest; of several outputs a list for each. Empty unless asked
            for.
        raw: the JSON.
    """

    id: str
    score: float
    scores: tuple[float, ...]
    version: str | None
    decision: str | None
    features: Mapping[str, float | None]
    views: Mapping[str, ReplyView]
    contributions: Mapping[str, float | Sequence[float]]
    raw: Json = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The answers to the rows of one request, in their order.

    Args:
        model: name of the model.
        version: its version; None: several versions answered, and each prediction names its own.
        t_us: the one moment at which everything was evaluated, microseconds since the epoch, UTC.
        log: ``required``: the log row is durable; ``best_effort``: it is on its way.
        degraded: whether features were missing because the online store did not answer in time.
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
        """Return the moment of the prediction, with its zone."""
        return datetime.fromisoformat(self.raw["t"])

    @property
    def scores(self) -> list[float]:
        """Return the score of each row."""
        return [item.score for item in self.predictions]


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model that is served: its features in order; ``raw`` has inputs, metrics, runtime and all else."""

    name: str
    version: str
    features: tuple[str, ...]
    raw: Json = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Models:
    """The models that are served, and by model, why a newer version is not."""

    models: tuple[Model, ...]
    refused: Mapping[str, Any]
    raw: Json = field(repr=False)

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models)


@dataclass(frozen=True, kw_only=True, slots=True)
class Readiness:
    """Whether predictions are answered, and why not, by part of the server; ``server``: why nobody answers at all."""

    ready: bool
    reasons: Mapping[str, str]

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
        features={name: _feature(value) for name, value in (data.get("features") or {}).items()},
        views={name: _read_view(view) for name, view in (data.get("views") or {}).items()},
        contributions=data.get("contributions") or {},
        raw=data,
    )


def _feature(value: float | str | None) -> float | None:
    return None if value is None else _number(value)


def _number(value: float | str | None) -> float:
    # JSON has no infinities: they come as texts.
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
    return Readiness(ready=bool(data["ready"]), reasons=data.get("reasons") or {})
