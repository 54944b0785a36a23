"""``POST /v2/models/{name}[/versions/{version}]/infer``: predictions as the protocol asks for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import NamedTuple

from skewless.contract.clock import Clock
from skewless.contract.errors import RequestError, SkewlessError
from skewless.infra.packages.served_model import ServedModel
from skewless.serving.access.gate import Access
from skewless.serving.http.hot_routes import JSON, Exchange, Handler, Header, handled
from skewless.serving.http.request_options import read_options
from skewless.serving.metrics.metrics import Metrics
from skewless.serving.models.table import ModelTable
from skewless.serving.oip.compression import deflated, inflated
from skewless.serving.oip.inputs import question_of
from skewless.serving.oip.models import OipModel, OipModels
from skewless.serving.oip.outputs import asked_outputs, encode_reply, is_wide, outputs_of
from skewless.serving.oip.request import InferRequest, parse_request
from skewless.serving.prediction.predictor import Predictor
from skewless.serving.prediction.scored_batch import ScoredSlice
from skewless.serving.prediction.scoring_request import Options, ScoringRequest
from skewless.serving.prediction.split_request import MergedSlices

_START, _END = "/v2/models/", "/infer"
_DEPTHS = (4, 6)  # slashes of a path without and with a version
_NOT_SERVED = ("priority", "sequence_id")
_LONGEST_NUMBER = 18  # digits
_BINARY: tuple[Header, ...] = ((b"content-type", b"application/octet-stream"),)


class _Headers(NamedTuple):
    """What the headers of a request say about the bodies."""

    encoding: bytes
    accepted: bytes
    json_length: int | None


class _PendingReply(NamedTuple):
    """What is known of a request when its answer comes."""

    began: float
    accepted: bytes
    request_id: str | None
    shown: OipModel
    outputs: Mapping[str, bool]


class InferRoute:
    """Handles the route.

    Args:
        body_bytes: longest body, also after it is unpacked.
        deadline_s: time limit of requests that set none, seconds; 0: none.
    """

    def __init__(
        self,
        *,
        models: ModelTable,
        shown: OipModels,
        predictor: Predictor,
        access: Access,
        metrics: Metrics,
        clock: Clock,
        body_bytes: int,
        deadline_s: float = 0.0,
    ) -> None:
        self._models = models
        self._shown = shown
        self._predictor = predictor
        self._access = access
        self._metrics = metrics
        self._clock = clock
        self._body_bytes = body_bytes
        self._deadline_s = deadline_s
        self._parse, self._encode = metrics.stage("parse"), metrics.stage("encode")

    def find(self, path: str) -> Handler | None:
        """Return what handles a path; None: it is another route's."""
        ours = path.startswith(_START) and path.endswith(_END) and path.count("/") in _DEPTHS
        return self.handle if ours else None

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, now or later."""
        start = time.perf_counter()
        began = start - exchange.waited
        model: ServedModel | None = None
        try:
            name, version = _named(exchange.path)
            model = self._models.get(name, version)
            self._ask(exchange, model, start, routed=version is None)
        except SkewlessError as error:
            self._refuse(exchange, error, model, began)

    def _ask(self, exchange: Exchange, model: ServedModel, start: float, *, routed: bool) -> None:
        headers = _headers(exchange)
        body = inflated(exchange.body, headers.encoding, self._body_bytes) if headers.encoding else exchange.body
        request = parse_request(body, headers.json_length)
        shown = self._shown.of(model)
        outputs = asked_outputs(shown.signature, request)
        options = self._options(request, exchange.waited, contributions="contributions" in outputs)
        if options.as_of is not None:
            self._access.check(exchange.headers, "as_of")
        question = question_of(model, shown.signature, request.inputs, options, self._predictor.limits.max_batch)
        if routed:
            question = self._routed(question, outputs)
        asked = _PendingReply(start - exchange.waited, headers.accepted, request.id, shown, outputs)
        self._parse.observe(time.perf_counter() - start)
        self._predictor.ask(question, lambda answer: self._answered(exchange, asked, model, answer))

    def _routed(self, question: ScoringRequest, outputs: Mapping[str, bool]) -> ScoringRequest:
        """Return a question as the model's traffic policy has it answered.

        The champion alone answers whole vectors, and those who want features while the versions' features differ.
        """
        routing = self._models.routing(question.model.name)
        if routing is None or question.columns is None:
            return question
        if not routing.same_features and any(map(is_wide, outputs)):
            return question
        return question._replace(routing=routing)

    def _options(self, request: InferRequest, waited: float, *, contributions: bool) -> Options:
        values = request.parameters
        for name in _NOT_SERVED if values else ():
            if values.get(name):
                raise RequestError(
                    f"parameter {name!r}", "is not supported: requests are answered as they come", fix="leave it out"
                )
        if contributions or "contributions" in values or values.get("timeout") == 0:
            values = {**values, "contributions": contributions, "timeout": values.get("timeout") or None}
        return read_options(
            values,
            now_us=self._clock.now_us(),
            loop_s=asyncio.get_running_loop().time() - waited,
            deadline_s=self._deadline_s,
            timeout="timeout",
        )

    def _answered(
        self,
        exchange: Exchange,
        asked: _PendingReply,
        model: ServedModel,
        answer: ScoredSlice | MergedSlices | SkewlessError,
    ) -> None:
        if isinstance(answer, SkewlessError):
            self._refuse(exchange, answer, model, asked.began)
            return
        handled(lambda way: self._reply(way, asked, answer), exchange)

    def _reply(self, exchange: Exchange, asked: _PendingReply, answer: ScoredSlice | MergedSlices) -> None:
        start = time.perf_counter()
        head = self._head(asked, answer)
        body, json_length = encode_reply(head, outputs_of(asked.shown.signature, answer, asked.outputs))
        headers = JSON if json_length is None else (*_BINARY, (b"inference-header-content-length", b"%d" % json_length))
        if asked.accepted:
            body, encoding = deflated(body, asked.accepted)
            headers = headers if encoding is None else (*headers, (b"content-encoding", encoding))
        exchange.reply(200, body, headers)
        now = time.perf_counter()
        self._encode.observe(now - start)
        self._metrics.seconds.observe(now - asked.began)
        for part in answer.parts if isinstance(answer, MergedSlices) else (answer,):
            self._shown.of(part.model).tally.answer(part, now - asked.began)

    def _head(self, asked: _PendingReply, answer: ScoredSlice | MergedSlices) -> bytes:
        if isinstance(answer, MergedSlices):
            versions = [part.model.version for part in answer.parts]
            return asked.shown.signature.mixed_head(
                asked.request_id, answer.t, versions, degraded=answer.degraded, narrow=answer.narrow
            )
        return self._shown.of(answer.model).signature.head(
            asked.request_id, answer.t, degraded=answer.degraded, narrow=answer.narrow
        )

    def _refuse(self, exchange: Exchange, error: SkewlessError, model: ServedModel | None, began: float) -> None:
        names = ("unknown", "") if model is None else (model.name, model.version)
        self._metrics.requests(*names, error.kind).inc()
        if model is not None:
            self._shown.of(model).tally.refuse(time.perf_counter() - began)
        exchange.refuse(error)


def _named(path: str) -> tuple[str, str | None]:
    """Return the model and the version of a path; None: it names none, which an empty one is not."""
    name, named, version = path[len(_START) : -len(_END)].partition("/versions/")
    return name, version if named else None


def _headers(exchange: Exchange) -> _Headers:
    encoding = accepted = b""
    length: int | None = None
    for name, value in exchange.headers:
        if name == b"content-encoding":
            encoding = value
        elif name == b"accept-encoding":
            accepted = value
        elif name == b"inference-header-content-length":
            length = _length(value)
    return _Headers(encoding, accepted, length)


def _length(value: bytes) -> int:
    if not value.isdigit() or len(value) > _LONGEST_NUMBER:
        raise RequestError("Inference-Header-Content-Length", "is no length", value=value, fix="send the bytes of JSON")
    return int(value)
