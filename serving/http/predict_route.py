"""``POST /predict``: predictions for one or many rows of entity keys."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field

from skewless.contract.errors import RequestError, SkewlessError
from skewless.contract.request import check_count
from skewless.serving.http.hot_routes import JSON, Exchange, reply_failure
from skewless.serving.http.openapi import ExpectedValue, RequestBody
from skewless.serving.http.prediction_route import LIMIT, PredictionRoute
from skewless.serving.http.reply import merged_json, predictions_json, scores_json
from skewless.serving.prediction.routing import NO_OPTIONS, MergedSlices, Options, ScoringRequest
from skewless.serving.prediction.scored_batch import ScoredSlice

Infinite: TypeAlias = Literal["Infinity", "-Infinity"]  # JSON has no such numbers


class PredictRequest(BaseModel):
    """Body of ``POST /predict``."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str | None, ExpectedValue("the name of a model")] = Field(
        None, description="Name of the model; optional if the server has one model."
    )
    version: Annotated[str | None, ExpectedValue("a version as text")] = Field(
        None, description="A loaded version; default: the champion."
    )
    rows: Annotated[list[dict[str, Any]], ExpectedValue("a list of objects")] = Field(
        min_length=1, description="One or more objects with entity keys and request features."
    )
    features: Annotated[bool | None, ExpectedValue("true or false")] = Field(
        default=None, description="Also return feature values with their status and age."
    )
    contributions: Annotated[bool | None, ExpectedValue("true or false")] = Field(
        default=None, description="Also return the contribution of each feature to the margin."
    )
    as_of: Annotated[int | str | None, ExpectedValue("microseconds, or an ISO 8601 time")] = Field(
        None, description="Evaluation time: microseconds, or ISO 8601 with time zone; default: now."
    )
    max_feature_age_s: Annotated[float | None, ExpectedValue("a number of seconds")] = Field(
        None, gt=0, lt=LIMIT, description="Rows older than this are stale, whatever their view allows."
    )
    timeout_us: Annotated[int | None, ExpectedValue("an integer number of microseconds")] = Field(
        None, gt=0, lt=LIMIT, description="Time limit of the request, microseconds."
    )


PREDICT_BODY = RequestBody(PredictRequest)


class PredictedRow(BaseModel):
    """Prediction for one row; fields that were not requested are absent."""

    id: str
    score: float | Infinite
    version: str | None = Field(None, description="Version that served the row, if several versions serve the model.")
    t_us: int | None = Field(None, description="Evaluation time of the row, if it differs from the request's.")
    scores: list[float | Infinite] | None = Field(None, description="All outputs of a model with several outputs.")
    decision: str | None = Field(None, description="Decision for the score, of a model with decisions.")
    out_of_bounds: list[str] | None = Field(None, description="Inputs outside the model's bounds, if any.")
    features: dict[str, float | Infinite | None] | None = None
    views: dict[str, dict[str, Any]] | None = None
    contributions: dict[str, float | list[float]] | None = Field(None, description="By feature, and the bias.")


class PredictReply(BaseModel):
    """Reply of ``POST /predict``."""

    model: str
    version: str | None = Field(description="Version that served the rows; null: several did, see each row.")
    t: str = Field(description="Evaluation time of all rows, ISO 8601, UTC.")
    t_us: int = Field(description="Evaluation time, microseconds since the epoch.")
    log: str = Field(description="`required`: the log row is durable; `best_effort`: it will be written.")
    degraded: bool = Field(description="Whether the online store did not answer and nulls were scored.")
    predictions: list[PredictedRow]


_PLAIN_FIELDS = frozenset({"model", "rows"})


class PredictRoute(PredictionRoute):
    """Handles ``POST /predict``."""

    def handle(self, exchange: Exchange) -> None:
        """Handle one request; the reply follows at once or later."""
        start = time.perf_counter()
        # The measured time includes the wait in the queue.
        started_at = start - exchange.waited_s
        name, version = "unknown", ""
        try:
            body = parse_body(exchange.body)
            model = self.models.get(body.get("model"), body.get("version"))
            name, version = model.name, model.version
            rows = body["rows"]
            check_count(len(rows), self.predictor.limits.max_batch)
            request = ScoringRequest(
                model=model,
                n=len(rows),
                rows=rows,
                columns=model.parser.parse_rows(rows),
                options=self._read_options(body, exchange.waited_s),
                routing=None if body.get("version") else self.models.routing(name),
            )
            if request.options.as_of is not None:
                self.access.check(exchange.headers, "as_of")
            self._parse.observe(time.perf_counter() - start)
            self.predictor.submit(
                request, partial(self._reply_result, exchange, started_at, bool(body.get("features")), (name, version))
            )
        except SkewlessError as error:
            self._reply_error(exchange, error, (name, version))

    def _reply_result(
        self,
        exchange: Exchange,
        started_at: float,
        features: bool,  # noqa: FBT001 - given by partial
        model: tuple[str, str],
        result: ScoredSlice | MergedSlices | SkewlessError,
    ) -> None:
        if isinstance(result, SkewlessError):
            self._reply_error(exchange, result, model)
            return
        try:
            self._reply(exchange, result, started_at, features=features)
        except Exception as error:  # noqa: BLE001 - the client waits for a reply, whatever failed
            reply_failure(exchange, error)

    def _read_options(self, body: Mapping[str, object], waited_s: float) -> Options:
        if not self.deadline_s and (len(body) == 1 or body.keys() <= _PLAIN_FIELDS):
            return NO_OPTIONS
        return self.read_options(body, waited_s)

    def _reply(
        self, exchange: Exchange, result: ScoredSlice | MergedSlices, started_at: float, *, features: bool
    ) -> None:
        start = time.perf_counter()
        if isinstance(result, MergedSlices):
            body = orjson.dumps(merged_json(result, features=features))
        else:
            fast_body = None if features else scores_json(result)
            body = fast_body or orjson.dumps(predictions_json(result, features=features))
        exchange.reply(200, body, JSON)
        now = time.perf_counter()
        self._encode.observe(now - start)
        self.metrics.seconds.observe(now - started_at)

    def _reply_error(self, exchange: Exchange, error: SkewlessError, model: tuple[str, str]) -> None:
        self.metrics.requests(*model, error.kind).inc()
        exchange.reply_error(error)


def parse_body(body: bytes) -> dict[str, Any]:
    """Return the fields of a request.

    >>> parse_body(b'{"rows": [{"id": 7}]}')
    {'rows': [{'id': 7}]}

    Raises:
        RequestError: the body is not JSON, has no rows, or has an unknown or mistyped field.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(
            "request body", f"is not JSON: {error}", fix="send valid JSON, with null for NaN and Infinity"
        ) from error
    if not isinstance(data, dict) or not isinstance(data.get("rows"), list):
        raise RequestError("request body", "has no list 'rows'", fix='send {"rows": [{...}]}')
    # Nearly all requests have only the usual fields, and skip the check by pydantic.
    if len(data) > 1 and (data.keys() - _PLAIN_FIELDS or not isinstance(data.get("model", ""), str)):
        PREDICT_BODY.check(data)
    return data
