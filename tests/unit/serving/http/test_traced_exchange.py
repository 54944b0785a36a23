"""The reply of a traced request names its span and ends it, once; its log lines have the id of the trace."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from structlog.testing import capture_logs

from skewless.contract.errors import RequestError
from skewless.contract.trace_context import TraceContext
from skewless.infra.platform.telemetry.trace import Trace
from skewless.serving.access.caller import ANYONE
from skewless.serving.http.hot_routes import JSON, Exchange, call_handler
from skewless.serving.prediction.group import Group
from skewless.serving.prediction.rejections import fail_group

CONTEXT = TraceContext(0xABC, 0xDEF, is_sampled=True)


@dataclass
class Replies:
    """An exchange, its replies and its finished traces."""

    sent: list[tuple[int, bytes, Any]] = field(default_factory=list)
    finished: list[Trace] = field(default_factory=list)

    def exchange(self, *, traced: bool = True) -> Exchange:
        return Exchange(
            method="POST",
            path="/predict",
            query=b"",
            headers=[],
            body=b"",
            caller=ANYONE,
            send=lambda *reply: self.sent.append(reply),
            trace=Trace(CONTEXT, 0, self.finished.append) if traced else None,
        )


def test_a_reply_names_the_span() -> None:
    replies = Replies()
    replies.exchange().reply(200, b"{}", JSON)
    assert replies.sent == [(200, b"{}", (*JSON, (b"traceresponse", CONTEXT.header())))]
    (trace,) = replies.finished
    assert (trace.attributes, trace.is_error) == ({"http.response.status_code": 200}, False)


def test_without_a_trace_a_reply_is_passed_on_as_it_is() -> None:
    replies = Replies()
    replies.exchange(traced=False).reply(200, b"{}", JSON)
    assert replies.sent[0][2] is JSON  # the protocol recognizes the usual head by identity


def test_an_error_has_its_kind() -> None:
    replies = Replies()
    replies.exchange().reply_error(RequestError("row 0", "is bad", fix="send another"))
    (trace,) = replies.finished
    assert trace.attributes == {
        "skewless.outcome": "request",
        "error.type": "request",
        "http.response.status_code": 400,
    }


def test_a_handler_that_fails_after_its_reply_does_not_change_the_trace() -> None:
    def handle(exchange: Exchange) -> None:
        exchange.reply(200, b"{}")
        raise ZeroDivisionError

    replies = Replies()
    with capture_logs() as lines:
        call_handler(handle, replies.exchange())
    (trace,) = replies.finished
    assert trace.attributes == {"http.response.status_code": 200}
    assert (lines[0]["event"], lines[0]["trace_id"]) == ("request_failed", f"{0xABC:032x}")


def test_a_defect_of_a_batch_names_its_traces() -> None:
    other = Trace(CONTEXT._replace(trace_id=0x123), 0, lambda _: None)
    traces = [Trace(CONTEXT, 0, lambda _: None), other]
    group = SimpleNamespace(model=SimpleNamespace(name="fraud"), tickets=[], traces=traces)
    with capture_logs() as lines:
        fail_group(cast("Group", group), ZeroDivisionError())
        fail_group(cast("Group", SimpleNamespace(**{**vars(group), "traces": ()})), ZeroDivisionError())
    assert [line.get("trace_id") for line in lines] == [f"{0xABC:032x},{0x123:032x}", None]
