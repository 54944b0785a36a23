"""``POST /v2/models/{name}[/versions/{version}]/infer``: predictions in the Open Inference Protocol."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from skewless.contract.errors import RequestError, SkewlessError
from skewless.infra.models.packages.served_model import ServedModel
from skewless.serving.http.hot_routes import JSON, Exchange, Handler, Header, call_handler
from skewless.serving.http.predict_route import PredictionRoute
from skewless.serving.http.wire_limits import BodyTooLongError
from skewless.serving.prediction.routing import MergedSlices, Options, ScoringRequest
from skewless.serving.prediction.scored_batch import EXTRAS, ScoredSlice
from skewless_oip.conversion import (
    ReplyTensor,
    build_outputs,
    build_request,
    check_vector_outputs,
    encode_reply,
    requested_outputs,
)
from skewless_oip.request import InferRequest, parse_request
from skewless_oip.signature import OipModel, OipModels

_START, _END = "/v2/models/", "/infer"
_DEPTHS = (4, 6)  # slashes of a path without and with a version
_UNSUPPORTED = ("priority", "sequence_id")
_LONGEST_NUMBER = 18  # digits; more would not fit int64
_BINARY: tuple[Header, ...] = ((b"content-type", b"application/octet-stream"),)
# zlib's window bits, which select the format.
_WINDOW = {b"gzip": 31, b"deflate": 15}
_MIN_BYTES = 4_096  # bytes; shorter replies fit into a packet or two, compressed or not
_LEVEL = 1


class InferTarget(NamedTuple):
    """The model that a request names, and what its transport has already parsed.

    Args:
        version: None: the champion.
        message: the parsed message of gRPC; None: HTTP.
    """

    name: str
    version: str | None
    message: Any = None


class PendingReply(NamedTuple):
    """Data of a request that its reply needs."""

    started_at: float
    accepted: bytes
    request_id: str | None
    oip_model: OipModel
    outputs: Mapping[str, bool]


@dataclass(kw_only=True, eq=False)
class InferRoute(PredictionRoute):
    """Handles ``infer`` over HTTP; a subclass for another transport has its own target, request and reply.

    Args:
        body_bytes: maximum length of a body, also after decompression.
    """

    oip_models: OipModels
    body_bytes: int
    route = "/v2/models/{model}/infer"

    def find(self, path: str) -> Handler | None:
        """Return the handler of a path; None: the path belongs to another route."""
        is_infer_path = path.startswith(_START) and path.endswith(_END) and path.count("/") in _DEPTHS
        return self.handle if is_infer_path else None

    def handle(self, exchange: Exchange) -> None:
        """Handle one request; the reply follows at once or later."""
        start = time.perf_counter()
        started_at = start - exchange.waited_s
        if exchange.trace is not None:
            self.begin_trace(exchange.trace, start, exchange.waited_s)
        model: ServedModel | None = None
        try:
            target = self.find_target(exchange)
            model = self.models.get(exchange.caller.choose_model(target.name), target.version)
            self._submit(exchange, model, target, start)
        except SkewlessError as error:
            self._reply_error(exchange, error, model, started_at)

    def find_target(self, exchange: Exchange) -> InferTarget:
        """Return the model that a request names.

        Raises:
            RequestError: the request cannot be parsed.
        """
        return _parse_path(exchange.path)

    def read_request(self, exchange: Exchange, target: InferTarget) -> tuple[InferRequest, bytes]:  # noqa: ARG002
        """Return the request, and the encodings of the reply that its client accepts.

        Raises:
            RequestError: the request does not follow the protocol.
        """
        encoding, accepted, json_length = _read_headers(exchange)
        body = decompress(exchange.body, encoding, self.body_bytes) if encoding else exchange.body
        return parse_request(body, json_length), accepted

    def encode_reply(
        self, pending: PendingReply, head: bytes, outputs: Sequence[ReplyTensor]
    ) -> tuple[bytes, Sequence[Header]]:
        """Return body and headers of a reply.

        Args:
            head: the JSON of the reply up to its outputs.

        Raises:
            RequestError: an output cannot be encoded as the request says.
        """
        body, json_length = encode_reply(head, outputs)
        headers = JSON if json_length is None else (*_BINARY, (b"inference-header-content-length", b"%d" % json_length))
        if pending.accepted:
            body, encoding = compress_reply(body, pending.accepted)
            headers = headers if encoding is None else (*headers, (b"content-encoding", encoding))
        return body, headers

    def read_deadline(self, exchange: Exchange, options: Options) -> Options:  # noqa: ARG002 - of a subclass
        """Return the options with the deadline of the transport; HTTP has none."""
        return options

    def _submit(self, exchange: Exchange, model: ServedModel, target: InferTarget, start: float) -> None:
        request, accepted = self.read_request(exchange, target)
        oip_model = self.oip_models.get(model)
        outputs = requested_outputs(oip_model.signature, request)
        options = self._read_options(request, exchange.waited_s, outputs)
        options = self.read_deadline(exchange, options)
        # The option is in the body, so its scope can be checked only after the parser.
        if options.as_of is not None:
            exchange.caller.require("as_of")
        scoring_request = build_request(
            model, oip_model.signature, request.inputs, options, self.predictor.limits.max_batch
        )
        if scoring_request.vectors is not None:
            check_vector_outputs(model, outputs)
        if target.version is None:
            scoring_request = self._add_routing(scoring_request, outputs)
        if exchange.request_id:
            scoring_request = scoring_request._replace(request_id=exchange.request_id)
        pending = PendingReply(start - exchange.waited_s, accepted, request.id, oip_model, outputs)
        self._parse.observe(time.perf_counter() - start)
        if exchange.trace is not None:
            self.trace_request(exchange.trace, scoring_request, start)
            scoring_request = scoring_request._replace(trace=exchange.trace)
        self.predictor.submit(scoring_request, lambda result: self._reply_result(exchange, pending, model, result))

    def _add_routing(self, scoring_request: ScoringRequest, outputs: Mapping[str, bool]) -> ScoringRequest:
        """Return a request with the routing of the model's traffic policy.

        The champion alone serves vectors, requests for leaves, and requests for features if those of the versions
        differ.
        """
        routing = self.models.routing(scoring_request.model.name)
        if routing is None or scoring_request.columns is None:
            return scoring_request
        # Outputs with one column per feature or view, in which versions may differ.
        wide = [name for name in outputs if name.startswith("feature_") or name == "contributions"]
        if wide and not routing.has_same_features:
            return scoring_request
        # Each version has its own trees.
        if "leaves" in outputs and not routing.has_one_version:
            return scoring_request
        return scoring_request._replace(routing=routing)

    def _read_options(self, request: InferRequest, waited_s: float, outputs: Mapping[str, bool]) -> Options:
        values = request.parameters
        for name in _UNSUPPORTED if values else ():
            if values.get(name):
                raise RequestError(
                    f"parameter {name!r}", "is not supported: requests are served in order of arrival", fix="omit it"
                )
        # In the protocol, a timeout of 0 asks for the server's limit, which `read_options` applies to a missing one.
        is_plain = outputs.keys().isdisjoint(EXTRAS) and values.keys().isdisjoint(EXTRAS)
        if not is_plain or values.get("timeout") == 0:
            # An extra is an output here, and never a parameter.
            extras = {name: name in outputs for name in EXTRAS}
            values = {**values, **extras, "timeout": values.get("timeout") or None}
        return self.read_options(values, waited_s, "timeout")

    def _reply_result(
        self,
        exchange: Exchange,
        pending: PendingReply,
        model: ServedModel,
        result: ScoredSlice | MergedSlices | SkewlessError,
    ) -> None:
        if isinstance(result, SkewlessError):
            self._reply_error(exchange, result, model, pending.started_at)
            return
        # This is a callback, so an exception of the reply would otherwise reach no handler, and the client would wait.
        call_handler(lambda target: self._reply(target, pending, result), exchange)

    def _reply(self, exchange: Exchange, pending: PendingReply, result: ScoredSlice | MergedSlices) -> None:
        start = time.perf_counter()
        if exchange.trace is not None:
            self.trace_result(exchange.trace, result, start)
        outputs = build_outputs(pending.oip_model.signature, result, pending.outputs)
        exchange.reply(200, *self.encode_reply(pending, self._head(pending, result), outputs))
        now = time.perf_counter()
        self._encode.observe(now - start)
        self.metrics.seconds.observe(now - pending.started_at)
        for part in result.parts if isinstance(result, MergedSlices) else (result,):
            self.oip_models.get(part.model).counts.count_success(part, now - pending.started_at)

    def _head(self, pending: PendingReply, result: ScoredSlice | MergedSlices) -> bytes:
        if isinstance(result, MergedSlices):
            versions = [part.model.version for part in result.parts]
            return pending.oip_model.signature.merged_head(
                pending.request_id, result.t, versions, degraded=result.degraded, narrow=result.narrow
            )
        # The version that answered; a routed request named none.
        return self.oip_models.get(result.model).signature.head(
            pending.request_id, result.t, degraded=result.degraded, narrow=result.narrow
        )

    def _reply_error(
        self, exchange: Exchange, error: SkewlessError, model: ServedModel | None, started_at: float
    ) -> None:
        names = ("unknown", "") if model is None else (model.name, model.version)
        self.metrics.requests(*names, error.kind).inc()
        if model is not None:
            self.oip_models.get(model).counts.count_failure(time.perf_counter() - started_at)
        exchange.reply_error(error)


def _parse_path(path: str) -> InferTarget:
    """Return model and version of a path; None: the path has no version. An empty version is not the same."""
    name, has_version, version = path[len(_START) : -len(_END)].partition("/versions/")
    return InferTarget(name, version if has_version else None)


def _read_headers(exchange: Exchange) -> tuple[bytes, bytes, int | None]:
    """Return the encoding of the request's body, the encodings that the client accepts, and the length of the JSON."""
    encoding = accepted = b""
    length: int | None = None
    for name, value in exchange.headers:
        if name == b"content-encoding":
            encoding = value
        elif name == b"accept-encoding":
            accepted = value
        elif name == b"inference-header-content-length":
            length = _parse_length(value)
    return encoding, accepted, length


def _parse_length(value: bytes) -> int:
    if not value.isdigit() or len(value) > _LONGEST_NUMBER:
        raise RequestError(
            "Inference-Header-Content-Length",
            "is not a length",
            value=value,
            fix="send the length of the JSON in bytes",
        )
    return int(value)


def decompress(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """Return a decompressed request body.

    >>> decompress(zlib.compress(b"{}"), b"deflate", 10)
    b'{}'

    Args:
        encoding: value of the header Content-Encoding.
        max_bytes: maximum length of the result, bytes.

    Raises:
        RequestError: the encoding is unknown, or the body is corrupt, truncated, or has bytes after its end.
        BodyTooLongError: the result is longer than ``max_bytes``.
    """
    encoding = encoding.strip().lower()
    if encoding in {b"", b"identity"}:
        return body
    window = _WINDOW.get(encoding)
    if window is None:
        raise RequestError("Content-Encoding", "is unknown", value=encoding, fix="send gzip, deflate or no such header")
    stream = zlib.decompressobj(window)
    try:
        # One byte more than allowed shows that it is too long, however much would follow.
        result = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RequestError("request body", f"is not {encoding.decode()}: {error}", fix="compress it again") from None
    if len(result) > max_bytes:
        raise BodyTooLongError("request body", f"has more than {max_bytes} bytes, decompressed", fix="send fewer rows")
    if not stream.eof or stream.unused_data:
        problem = "has bytes after" if stream.eof else "is truncated before"
        raise RequestError("request body", f"{problem} the end of the {encoding.decode()} data", fix="send it again")
    return result


def compress_reply(body: bytes, accepted: bytes) -> tuple[bytes, bytes | None]:
    """Return a reply in an encoding that the client accepts, and the encoding; a short reply stays uncompressed.

    >>> compress_reply(b"short", b"gzip")
    (b'short', None)

    Args:
        accepted: value of the header Accept-Encoding.
    """
    if len(body) < _MIN_BYTES:
        return body, None
    encoding = _choose_encoding(accepted)
    if encoding is None:
        return body, None
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOW[encoding])
    return stream.compress(body) + stream.flush(), encoding


def _choose_encoding(accepted: bytes) -> bytes | None:
    weighted_names = [offer.replace(b" ", b"").lower().partition(b";q=") for offer in accepted.split(b",")]
    names = {name for name, _, weight in weighted_names if weight.rstrip(b"0") not in {b"0.", b""} or not weight}
    return next((encoding for encoding in _WINDOW if encoding in names), None)
