"""``POST /predict``: our own short way to ask, for one row or many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field

from skewless.contract.clock import Clock
from skewless.contract.errors import RequestError, SkewlessError
from skewless.contract.request import check_count
from skewless.serving.access.gate import Access
from skewless.serving.http.hot_routes import JSON, Exchange, failed
from skewless.serving.http.openapi import ExpectedValue, RequestBody
from skewless.serving.http.reply import mixed_json, plain_reply, predictions_json
from skewless.serving.http.request_options import LIMIT, read_options
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.scoring_request import NO_OPTIONS, Options, ScoringRequest
from skewless.serving.prediction.split_request import MergedSlices

Infinite: TypeAlias = Literal["Infinity", "-Infinity"]  # JSON has no such numbers


class PredictRequest(BaseModel):
    """What ``POST /predict`` takes."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str | None, ExpectedValue("the name of a model")] = Field(
        None, description="name of the model; may be left out where one is served"
    )
    version: Annotated[str | None, ExpectedValue("a version as text")] = Field(
        None, description="a version that is loaded; by default the champion"
    )
    rows: Annotated[list[dict[str, Any]], ExpectedValue("a list of objects")] = Field(
        min_length=1, description="one or many objects of entity keys and request fields"
    )
    features: Annotated[bool | None, ExpectedValue("true or false")] = Field(
        default=None, description="also return feature values, their status and age"
    )
    contributions: Annotated[bool | None, ExpectedValue("true or false")] = Field(
        default=None, description="also return what each feature added to the margin"
    )
    as_of: Annotated[int | str | None, ExpectedValue("microseconds, or an ISO 8601 time")] = Field(
        None, description="evaluate at this time: microseconds, or ISO 8601 with a zone"
    )
    max_feature_age_s: Annotated[float | None, ExpectedValue("a number of seconds")] = Field(
        None, gt=0, lt=LIMIT, description="older rows are stale, whatever their view says"
    )
    timeout_us: Annotated[int | None, ExpectedValue("a whole number of microseconds")] = Field(
        None, gt=0, lt=LIMIT, description="microseconds after which the answer is of no use"
    )


PREDICT_BODY = RequestBody(PredictRequest)


class PredictedRow(BaseModel):
    """One row of a reply; what was not asked for is left out."""

    id: str
    score: float | Infinite
    version: str | None = Field(None, description="what answered the row, where several versions answer one request")
    t_us: int | None = Field(None, description="the time of the row, where it is another than the request's")
    scores: list[float | Infinite] | None = Field(None, description="of a model with several outputs: all of them")
    decision: str | None = Field(None, description="of a model with decisions: the one that the score leads to")
    out_of_bounds: list[str] | None = Field(None, description="features and fields outside the model's bounds, if any")
    features: dict[str, float | Infinite | None] | None = None
    views: dict[str, dict[str, Any]] | None = None
    contributions: dict[str, float | list[float]] | None = Field(None, description="by feature, and the bias")


class PredictReply(BaseModel):
    """What ``POST /predict`` answers."""

    model: str
    version: str | None = Field(description="what answered; null: several versions did, and each row names its own")
    t: str = Field(description="the one time at which everything was evaluated, ISO 8601, UTC")
    t_us: int = Field(description="the same in microseconds since the epoch")
    log: str = Field(description="`required`: the log row is durable; `best_effort`: it is on its way")
    degraded: bool = Field(description="the online store did not answer and nulls were scored")
    predictions: list[PredictedRow]


_PLAIN = frozenset({"model", "rows"})


class PredictRoute:
    """Handles the route.

    Args:
        deadline_s: time limit of requests that set none, seconds; 0: none.
    """

    def __init__(
        self,
        *,
        models: ModelTable,
        predictor: Predictor,
        access: Access,
        metrics: Metrics,
        clock: Clock,
        deadline_s: float = 0.0,
    ) -> None:
        self._models = models
        self._predictor = predictor
        self._access = access
        self._metrics = metrics
        self._clock = clock
        self._deadline_s = deadline_s
        self._parse, self._encode = metrics.stage("parse"), metrics.stage("encode")

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, now or later."""
        start = time.perf_counter()
        began = start - exchange.waited
        name, version = "unknown", ""
        try:
            body = parse_body(exchange.body)
            model = self._models.get(body.get("model"), body.get("version"))
            name, version = model.name, model.version
            rows = body["rows"]
            check_count(len(rows), self._predictor.limits.max_batch)
            question = ScoringRequest(
                model=model,
                n=len(rows),
                rows=rows,
                columns=model.parser.parse_rows(rows),
                options=self._options(body, exchange.waited),
                routing=None if body.get("version") else self._models.routing(name),
            )
            if question.options.as_of is not None:
                self._access.check(exchange.headers, "as_of")
            self._parse.observe(time.perf_counter() - start)
            self._predictor.ask(
                question, partial(self._answered, exchange, began, bool(body.get("features")), (name, version))
            )
        except SkewlessError as error:
            self._refuse(exchange, error, (name, version))

    def _answered(
        self,
        exchange: Exchange,
        began: float,
        features: bool,  # noqa: FBT001 - given by partial
        model: tuple[str, str],
        answer: ScoredSlice | MergedSlices | SkewlessError,
    ) -> None:
        if isinstance(answer, SkewlessError):
            self._refuse(exchange, answer, model)
            return
        try:
            self._reply(exchange, answer, began, features=features)
        except Exception as error:  # noqa: BLE001 - as in handled
            failed(exchange, error)

    def _options(self, body: Mapping[str, object], waited: float) -> Options:
        if not self._deadline_s and (len(body) == 1 or body.keys() <= _PLAIN):
            return NO_OPTIONS
        return read_options(
            body,
            now_us=self._clock.now_us(),
            loop_s=asyncio.get_running_loop().time() - waited,
            deadline_s=self._deadline_s,
        )

    def _reply(self, exchange: Exchange, answer: ScoredSlice | MergedSlices, began: float, *, features: bool) -> None:
        start = time.perf_counter()
        if isinstance(answer, MergedSlices):
            body = orjson.dumps(mixed_json(answer, features=features))
        else:
            plain = None if features else plain_reply(answer)
            body = plain or orjson.dumps(predictions_json(answer, features=features))
        exchange.reply(200, body, JSON)
        now = time.perf_counter()
        self._encode.observe(now - start)
        self._metrics.seconds.observe(now - began)

    def _refuse(self, exchange: Exchange, error: SkewlessError, model: tuple[str, str]) -> None:
        self._metrics.requests(*model, error.kind).inc()
        exchange.refuse(error)


def parse_body(body: bytes) -> dict[str, Any]:
    """Return the fields of a request.

    >>> parse_body(b'{"rows": [{"id": 7}]}')
    {'rows': [{'id': 7}]}

    Raises:
        RequestError: it is not JSON, has no rows, or a field that is unknown or of the wrong type.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            "request body", f"is not JSON: {error}", fix="send valid JSON; NaN and Infinity are not, send null"
        ) from error
    if not isinstance(data, dict) or not isinstance(data.get("rows"), list):
        raise RequestError("request body", "has no list 'rows'", fix='send {"rows": [{...}]}')
    if len(data) > 1 and (data.keys() - _PLAIN or not isinstance(data.get("model", ""), str)):
        PREDICT_BODY.check(data)
    return data
