"""``POST /feedback``: what came of predictions, kept before it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from skewless.contract.clock import Clock
from skewless.contract.errors import RequestError
from skewless.contract.feedback import Outcome, parse_feedback
from skewless.contract.plan import FeaturePlan
from skewless.infra.outcomes.writer import OutcomeWriter
from skewless.serving.group_commit import GroupCommit
from skewless.serving.http.event_routes import parse_beside
from skewless.serving.http.openapi import RequestBody
from skewless.serving.http.reply import json_response
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable

_SHAPE = 'send {"feedback": [{"prediction_id": "...", "label": 1}]}'
_SOURCE = "http"


class Feedback:
    """Checks outcomes and makes them durable.

    Args:
        writer: where they go.
        models: whose keys and fields are known.
        metrics: counts what was taken.
        clock: tells when.
        most: rows of one request.
    """

    def __init__(self, writer: OutcomeWriter, models: ModelTable, metrics: Metrics, clock: Clock, *, most: int) -> None:
        self._writer = writer
        self._models = models
        self._metrics = metrics
        self._clock = clock
        self._most = most
        self._commit = GroupCommit(self._write)

    def parse(self, rows: Sequence[object]) -> list[Outcome]:
        """Return the outcomes of a request.

        Raises:
            RequestError: a row is wrong; it is named by its place.
        """
        return parse_feedback(rows, self._plan_of, self._clock.now_us(), self._most)

    async def take(self, outcomes: Sequence[Outcome]) -> None:
        """Return when the disk has them.

        Raises:
            StoreError: the disk refused; none of them was kept.
        """
        await self._commit.add(outcomes)
        for outcome in outcomes:
            self._metrics.feedback(outcome.by, outcome.kind).inc()

    def _plan_of(self, model: str) -> FeaturePlan:
        return self._models.get(model).plan

    async def _write(self, outcomes: Sequence[Outcome]) -> None:
        now = self._clock.now_us()
        await asyncio.to_thread(self._writer.append, outcomes, received_at=now, source=_SOURCE)


class FeedbackRow(BaseModel):
    """What came of one prediction; a later row about the same one takes its place as a whole."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    prediction_id: str | None = Field(None, description="which prediction; without it model, keys and event_time say")
    model: str | None = Field(None, description="name of the model")
    keys: dict[str, str | int | float | bool | None] | None = Field(
        None, description="all join keys of the model, and those request fields that tell predictions apart"
    )
    event_time: str | int | None = Field(None, description="ISO 8601 with a zone, or microseconds since the epoch")
    label: float | bool | None = Field(description="what was to be predicted; null takes back what was said before")
    value: float | bool | None = Field(None, description="what it was worth, in the unit of the business")
    known_at: str | int | None = Field(None, description="when it became known; now, if it is missing")


class FeedbackRequest(BaseModel):
    """The body of ``POST /feedback``."""

    model_config = ConfigDict(extra="forbid")

    feedback: list[FeedbackRow] = Field(min_length=1)


class FeedbackReply(BaseModel):
    """What ``POST /feedback`` answers."""

    accepted: int = Field(description="how many rows the outcome log has now, on disk")


def add_feedback(app: FastAPI, feedback: Feedback | None) -> None:
    """Add the route.

    Args:
        feedback: takes it; None: it is refused.
    """

    @app.post(
        "/feedback",
        summary="Say what came of predictions",
        openapi_extra=RequestBody(FeedbackRequest).described,
        status_code=202,
        response_model=FeedbackReply,
    )
    async def take(request: Request) -> Response:
        if feedback is None:
            raise RequestError("feedback", "is not taken by this server", fix="use `skewless serve`")
        body = await request.body()
        outcomes = await parse_beside(body, lambda: feedback.parse(read_rows(body)))
        await feedback.take(outcomes)
        return json_response({"accepted": len(outcomes)}, 202)


def read_rows(body: bytes) -> list[Any]:
    """Return the rows of a request.

    >>> read_rows(b'{"feedback": [{"prediction_id": "a", "label": 1}]}')
    [{'prediction_id': 'a', 'label': 1}]

    Raises:
        RequestError: it is not of that shape.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError("request body", f"is not JSON: {error}", fix=_SHAPE) from error
    if not isinstance(found, dict) or found.keys() != FeedbackRequest.model_fields.keys():
        raise RequestError("request body", "is not an object with the one field 'feedback'", fix=_SHAPE)
    if not isinstance(found["feedback"], list):
        raise RequestError("field 'feedback'", "is not a list", value=found["feedback"], fix=_SHAPE)
    rows: list[Any] = found["feedback"]
    return rows
