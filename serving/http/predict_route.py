"""``POST /predict``: predictions for one or many rows of entity keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeAlias

import orjson
from pydantic import BaseModel, ConfigDict, Field

from skewless.contract.clock import Clock, parse_time
from skewless.contract.errors import RequestError, SkewlessError
from skewless.contract.request import check_count
from skewless.infra.platform.telemetry.trace import Trace
from skewless.serving.http.hot_routes import JSON, Exchange, Header, reply_failure
from skewless.serving.http.openapi import RequestBody
from skewless.serving.http.reply import predictions_json, scores_json
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.prediction.predictor import Predictor
from skewless.serving.prediction.routing import NO_OPTIONS, MergedSlices, Options, ScoringRequest
from skewless.serving.prediction.scored_batch import EXTRAS, ScoredSlice

LIMIT = 2**53  # of ages and time limits, exclusive
_MILLISECOND = 1_000
_SECOND = 1_000_000
_YEAR_1_US = -62_135_596_800_000_000  # start of year 1, microseconds: replies give the time in ISO 8601


@dataclass(kw_only=True, eq=False)
class PredictionRoute:
    """A route that predicts.

    Args:
        deadline_s: timeout of requests that set none, seconds; 0: none.

    Attributes:
        route: its path, with names in braces, for traces.
    """

    route: ClassVar[str]
    models: ModelTable
    predictor: Predictor
    metrics: Metrics
    clock: Clock
    deadline_s: float = 0.0

    def __post_init__(self) -> None:
        """Look up the series once, because a look-up costs as much as several observations."""
        self._parse, self._encode = self.metrics.stage("parse"), self.metrics.stage("encode")

    def begin_trace(self, trace: Trace, start_s: float, waited_s: float) -> None:
        """Describe a request whose handler began at ``start_s``, after it had waited."""
        trace.name = f"POST {self.route}"
        trace.attributes |= {"http.request.method": "POST", "http.route": self.route}
        if waited_s:
            trace.add("wait", trace.started_at, start_s)

    def trace_request(self, trace: Trace, request: ScoringRequest, start_s: float) -> None:
        """Describe a request that is parsed."""
        trace.attributes |= {"skewless.model": request.model.name, "skewless.version": request.model.version}
        trace.attributes["skewless.rows"] = request.n
        trace.add("parse", start_s, time.perf_counter())

    def trace_result(self, trace: Trace, result: ScoredSlice | MergedSlices, start_s: float) -> None:
        """Describe the result of a request; the rest of its time is spent on the reply."""
        parts = result.parts if isinstance(result, MergedSlices) else (result,)
        trace.attributes["skewless.version"] = ",".join(part.model.version for part in parts)
        trace.attributes["skewless.outcome"] = "degraded" if result.degraded else "ok"
        trace.open("encode", start_s)

    def read_options(self, values: Mapping[str, object], waited_s: float, timeout: str = "timeout_us") -> Options:
        """Return the options of a request that has waited some seconds; see ``read_options``."""
        return read_options(
            values,
            now_us=self.clock.now_us(),
            loop_s=asyncio.get_running_loop().time() - waited_s,
            deadline_s=self.deadline_s,
            timeout=timeout,
        )


def read_options(
    values: Mapping[str, object], *, now_us: int, loop_s: float, deadline_s: float = 0.0, timeout: str = "timeout_us"
) -> Options:
    """Return the options of a request.

    Args:
        values: ``as_of`` (microseconds or ISO 8601), ``max_feature_age_s``, those of ``EXTRAS`` and the time
            limit are read; null means absent.
        now_us: the current time, microseconds.
        loop_s: the current time on the event loop's clock, seconds; deadlines use this clock.
        deadline_s: timeout if the request sets none, seconds; 0: none.
        timeout: field name of the time limit, which is in microseconds.

    Raises:
        RequestError: a value is invalid, or ``as_of`` is in the future.
    """
    as_of, age, limit = values.get("as_of"), values.get("max_feature_age_s"), values.get(timeout)
    extras = () if values.keys().isdisjoint(EXTRAS) else tuple(name for name in EXTRAS if values.get(name))
    if as_of is age is limit is None and not extras and not deadline_s:
        return NO_OPTIONS
    seconds = deadline_s if limit is None else _parse_positive(timeout, limit, "microseconds") / _SECOND
    return Options(
        as_of=None if as_of is None else _parse_as_of(as_of, now_us),
        max_age_us=None
        if age is None
        else max(round(_parse_positive("max_feature_age_s", age, "seconds") * _SECOND), 1),
        deadline=loop_s + seconds if seconds else None,
        extras=extras,
    )


def _parse_as_of(value: object, now_us: int) -> int:
    as_of_us = value
    if isinstance(value, str):
        parsed = parse_time(value)
        if parsed is not None and not parsed[1]:
            raise _value_error("as_of", value, "add the zone, for example 'Z'")
        as_of_us = None if parsed is None else parsed[0]
    if type(as_of_us) is not int or not _YEAR_1_US <= as_of_us < 2**63:
        raise _value_error("as_of", value, "send an ISO 8601 time, or microseconds since the epoch")
    if as_of_us > now_us:
        raise RequestError("request field 'as_of'", "is in the future", value=value, fix="omit it for the current time")
    # Every evaluation time is a whole millisecond (SEMANTICS 1.2).
    return as_of_us // _MILLISECOND * _MILLISECOND


def _parse_positive(name: str, value: object, unit: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < LIMIT:
        raise _value_error(name, value, f"send a number of {unit} greater than 0")
    return float(value)


def _value_error(name: str, value: object, fix: str) -> RequestError:
    return RequestError(f"request field {name!r}", "has an invalid value", value=value, fix=fix)


Infinite: TypeAlias = Literal["Infinity", "-Infinity"]  # JSON has no such numbers
Flag: TypeAlias = Annotated[bool | None, "true or false"]


class PredictRequest(BaseModel):
    """Body of ``POST /predict``."""

    model_config = ConfigDict(extra="forbid")

    model: Annotated[str | None, "the name of a model"] = Field(
        None, description="Name of the model; optional if the server has one model."
    )
    version: Annotated[str | None, "a version as text"] = Field(
        None, description="A loaded version; default: the champion."
    )
    rows: Annotated[list[dict[str, Any]], "a list of objects"] = Field(
        min_length=1, description="One or more objects with entity keys and request features."
    )
    features: Flag = Field(default=None, description="Also return feature values with their status and age.")
    contributions: Flag = Field(default=None, description="Also return the contribution of each feature to the margin.")
    leaves: Flag = Field(default=None, description="Also return the leaf that the row reaches in each tree.")
    as_of: Annotated[int | str | None, "microseconds, or an ISO 8601 time"] = Field(
        None, description="Evaluation time: microseconds, or ISO 8601 with time zone; default: now."
    )
    max_feature_age_s: Annotated[float | None, "a number of seconds"] = Field(
        None, gt=0, lt=LIMIT, description="Rows older than this are stale, whatever their view allows."
    )
    timeout_us: Annotated[int | None, "an integer number of microseconds"] = Field(
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
    decision: str | None = Field(None, description="Decision for the score, of a model with decisions or a policy.")
    reasons: list[str] | None = Field(None, description="Codes of the policy's reasons, of a model with a policy.")
    explored: bool | None = Field(None, description="True if the row explores, even if the score decides the same.")
    out_of_bounds: list[str] | None = Field(None, description="Inputs outside the model's bounds, if any.")
    features: dict[str, float | Infinite | None] | None = None
    views: dict[str, dict[str, Any]] | None = None
    contributions: dict[str, float | list[float]] | None = Field(None, description="By feature, and the bias.")
    leaves: list[int] | None = Field(None, description="Leaf of each tree, in the order of training.")


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
Result: TypeAlias = ScoredSlice | MergedSlices
Reply: TypeAlias = tuple[bytes, Sequence[Header]]  # body and headers


class Encoder(Protocol):
    """Returns the reply for the result of a request."""

    def __call__(self, result: Result, *, features: bool) -> Reply:
        """Return body and headers; ``features``: with the values that the model used."""
        ...


class PredictRoute(PredictionRoute):
    """Handles ``POST /predict``."""

    route = "/predict"

    def read_request(self, exchange: Exchange) -> tuple[dict[str, Any], Encoder]:
        """Return the fields of a request, and the encoder of its reply.

        Raises:
            RequestError: the body is not a request.
        """
        return parse_body(exchange.body), encode_reply

    def handle(self, exchange: Exchange) -> None:
        """Handle one request; the reply follows at once or later."""
        start = time.perf_counter()
        # The measured time includes the wait in the queue.
        started_at = start - exchange.waited_s
        if exchange.trace is not None:
            self.begin_trace(exchange.trace, start, exchange.waited_s)
        name, version = "unknown", ""
        try:
            body, encode = self.read_request(exchange)
            wanted = body.get("version")
            model = self.models.get(exchange.caller.choose_model(body.get("model")), wanted)
            name, version = model.name, model.version
            rows = body["rows"]
            n = len(rows)
            check_count(n, self.predictor.limits.max_batch)
            columns, trace = model.parser.parse_rows(rows), exchange.trace
            options = self._read_options(body, exchange.waited_s)
            routing = None if wanted else self.models.routing(name)
            # By position, which takes half of the time.
            request = ScoringRequest(
                model, n, rows, columns, None, options, routing, trace=trace, request_id=exchange.request_id
            )
            if options.as_of is not None:
                exchange.caller.require("as_of")
            self._parse.observe(time.perf_counter() - start)
            if trace is not None:
                self.trace_request(trace, request, start)
            features = bool(body.get("features"))
            self.predictor.submit(
                request, partial(self._reply_result, exchange, started_at, encode, features, (name, version))
            )
        except SkewlessError as error:
            self._reply_error(exchange, error, (name, version))

    def _reply_result(
        self,
        exchange: Exchange,
        started_at: float,
        encode: Encoder,
        features: bool,  # noqa: FBT001 - given by partial
        model: tuple[str, str],
        result: Result | SkewlessError,
    ) -> None:
        if isinstance(result, SkewlessError):
            self._reply_error(exchange, result, model)
            return
        try:
            self._reply(exchange, result, started_at, encode, features=features)
        except Exception as error:  # noqa: BLE001 - the client waits for a reply, whatever failed
            reply_failure(exchange, error)

    def _read_options(self, body: Mapping[str, object], waited_s: float) -> Options:
        if not self.deadline_s and (len(body) == 1 or body.keys() <= _PLAIN_FIELDS):
            return NO_OPTIONS
        return self.read_options(body, waited_s)

    def _reply(self, exchange: Exchange, result: Result, started_at: float, encode: Encoder, *, features: bool) -> None:
        start = time.perf_counter()
        if exchange.trace is not None:
            self.trace_result(exchange.trace, result, start)
        body, headers = encode(result, features=features)
        exchange.reply(200, body, headers)
        now = time.perf_counter()
        self._encode.observe(now - start)
        self.metrics.seconds.observe(now - started_at)

    def _reply_error(self, exchange: Exchange, error: SkewlessError, model: tuple[str, str]) -> None:
        self.metrics.requests(*model, error.kind).inc()
        exchange.reply_error(error)


def encode_reply(result: Result, *, features: bool) -> Reply:
    """Return the reply of ``/predict``."""
    fast_body = None if features or isinstance(result, MergedSlices) else scores_json(result)
    return fast_body or orjson.dumps(predictions_json(result, features=features)), JSON


def parse_body(body: bytes) -> dict[str, Any]:
    """Return the fields of a request.

    >>> parse_body(b'{"rows": [{"id": 7}]}')
    {'rows': [{'id': 7}]}

    Raises:
        RequestError: the body is not JSON, has no rows, or has an unknown or mistyped field.
    """
    return check_body(load_json(body))


def load_json(
    body: bytes, thing: str = "request body", fix: str = "send valid JSON, with null for NaN and Infinity"
) -> object:
    """Return the value of a JSON body, or of a part of it.

    Raises:
        RequestError: it is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(thing, f"is not JSON: {error}", fix=fix) from error


def check_body(data: object) -> dict[str, Any]:
    """Return the fields of a request, checked.

    Raises:
        RequestError: it has no rows, or an unknown or mistyped field.
    """
    if not isinstance(data, dict) or not isinstance(data.get("rows"), list):
        raise RequestError("request body", "has no list 'rows'", fix='send {"rows": [{...}]}')
    # Nearly all requests have only the usual fields, and skip the check by pydantic.
    if len(data) > 1 and (data.keys() - _PLAIN_FIELDS or not isinstance(data.get("model", ""), str)):
        PREDICT_BODY.check(data)
    return data
