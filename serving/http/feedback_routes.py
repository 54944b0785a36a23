"""``POST /feedback``: outcomes of predictions, which are on disk before the reply."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from skewless.contract.clock import Clock
from skewless.contract.errors import RequestError
from skewless.contract.feedback import Outcome, parse_feedback
from skewless.contract.plan import FeaturePlan
from skewless.infra.records.outcomes.log import OutcomeWriter
from skewless.serving.access.caller import Caller
from skewless.serving.events import GroupCommit
from skewless.serving.http.event_routes import parse_in_thread
from skewless.serving.http.middleware import caller_of
from skewless.serving.http.openapi import RequestBody
from skewless.serving.http.predict_route import load_json
from skewless.serving.http.reply import json_response
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable

_FIX = 'send {"feedback": [{"prediction_id": "...", "label": 1}]}'
_SOURCE = "http"


class Feedback:
    """Checks outcomes and makes them durable.

    Args:
        writer: writes the outcome log.
        models: provides the keys and fields of each model.
        metrics: counts stored outcomes.
        clock: provides the time of arrival.
        max_rows: maximum number of rows in one request.
    """

    def __init__(
        self, writer: OutcomeWriter, models: ModelTable, metrics: Metrics, clock: Clock, *, max_rows: int
    ) -> None:
        self._writer = writer
        self._models = models
        self._metrics = metrics
        self._clock = clock
        self._max_rows = max_rows
        self._commit = GroupCommit(self._write)

    def parse(self, rows: Sequence[object], caller: Caller) -> list[Outcome]:
        """Return the outcomes of a request.

        Ids of predictions can be guessed. So an outcome from a caller that is limited to some models counts only for
        predictions of its model.

        Raises:
            RequestError: a row is invalid; the error gives its number.
            ScopeError: the caller may not use the model of a row, or must name one.
        """

        def plan_of(name: str) -> FeaturePlan:
            return self._models.get(caller.choose_model(name)).plan

        outcomes = parse_feedback(rows, plan_of, self._clock.now_us(), self._max_rows)
        if caller.models is None:
            return outcomes
        return [replace(outcome, model=caller.choose_model(outcome.model)) for outcome in outcomes]

    async def store(self, outcomes: Sequence[Outcome]) -> None:
        """Return once the outcomes are on disk.

        Raises:
            StoreError: the disk failed; none of the outcomes was stored.
        """
        await self._commit.add(outcomes)
        for outcome in outcomes:
            self._metrics.feedback(outcome.by, outcome.kind).inc()

    async def _write(self, outcomes: Sequence[Outcome]) -> None:
        now_us = self._clock.now_us()
        await asyncio.to_thread(self._writer.append, outcomes, received_at=now_us, source=_SOURCE)


class FeedbackRow(BaseModel):
    """Outcome of one prediction; a later row for the same prediction replaces it completely."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    prediction_id: str | None = Field(None, description="Id of the prediction; or use model, keys and event_time.")
    model: str | None = Field(None, description="Name of the model; optional with prediction_id.")
    keys: dict[str, str | int | float | bool | None] | None = Field(
        None, description="All join keys of the model, and the request features that identify the prediction."
    )
    event_time: str | int | None = Field(None, description="ISO 8601 with time zone, or microseconds since the epoch.")
    label: float | bool | None = Field(description="The true value; null retracts an earlier outcome.")
    value: float | bool | None = Field(None, description="Business value of the outcome, in your unit.")
    known_at: str | int | None = Field(None, description="When the outcome became known; default: now.")


class FeedbackRequest(BaseModel):
    """Body of ``POST /feedback``."""

    model_config = ConfigDict(extra="forbid")

    feedback: list[FeedbackRow] = Field(min_length=1)


class FeedbackReply(BaseModel):
    """Reply of ``POST /feedback``."""

    accepted: int = Field(description="Number of rows written to the outcome log, on disk.")


def add_feedback_route(app: FastAPI, feedback: Feedback) -> None:
    """Add the route."""

    @app.post(
        "/feedback",
        summary="Send outcomes of predictions",
        openapi_extra=RequestBody(FeedbackRequest).openapi_extra,
        status_code=202,
        response_model=FeedbackReply,
    )
    async def store(request: Request) -> Response:
        body = await request.body()
        caller = caller_of(request)
        outcomes = await parse_in_thread(body, lambda: feedback.parse(read_rows(body), caller))
        await feedback.store(outcomes)
        return json_response({"accepted": len(outcomes)}, 202)


def read_rows(body: bytes) -> list[Any]:
    """Return the rows of a request.

    >>> read_rows(b'{"feedback": [{"prediction_id": "a", "label": 1}]}')
    [{'prediction_id': 'a', 'label': 1}]

    Raises:
        RequestError: the body does not have this format.
    """
    decoded = load_json(body, fix=_FIX)
    if not isinstance(decoded, dict) or decoded.keys() != FeedbackRequest.model_fields.keys():
        raise RequestError("request body", "is not an object with the single field 'feedback'", fix=_FIX)
    if not isinstance(decoded["feedback"], list):
        raise RequestError("field 'feedback'", "is not a list", value=decoded["feedback"], fix=_FIX)
    rows: list[Any] = decoded["feedback"]
    return rows
