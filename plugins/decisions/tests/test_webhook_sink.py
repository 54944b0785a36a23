"""Webhooks: the signature, the answers, and receivers that misbehave."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from plugins.decisions.tests.decided import STREAM, decided_rows, decision_id
from skewless.contract.destinations import SinkHosts
from skewless.contract.errors import DefinitionError, StoreError
from skewless.contract.sinks import WebhookSink
from skewless_decisions.decision import JsonMessages, find_decisions
from skewless_decisions.outbox import DecisionBatch
from skewless_decisions.webhook_sink import WebhookDelivery
from tests.servers.webhook import HookReply, Request, WebhookReceiver, webhook_receiver

KEY, NEXT_KEY = b"k" * 24, b"n" * 24
ENVIRONMENT = {
    "HOOK_SECRET": f"whsec_{base64.b64encode(KEY).decode()} {base64.b64encode(NEXT_KEY).decode()}",
    "HOOK_TOKEN": "t0ken",
}


@pytest.fixture
def hook() -> Iterator[WebhookReceiver]:
    with webhook_receiver() as served:
        yield served


def declared(url: str, **fields: Any) -> WebhookSink:  # noqa: ANN401 - of the sink
    sink = WebhookSink(name="out", url=url, secret_env="HOOK_SECRET", timeout_s=20.0)  # noqa: S106 - a name
    return replace(sink, **fields)


def opened(url: str, **fields: Any) -> WebhookDelivery:  # noqa: ANN401 - of the sink
    return WebhookDelivery(declared(url, **fields), JsonMessages(), ENVIRONMENT, lambda: 1_760_000_000.9)


def batch(n: int) -> DecisionBatch:
    found = find_decisions(decided_rows(range(n)), {STREAM})
    return DecisionBatch(first=0, last=n - 1, positions=list(range(n)), decisions=[decision for _, decision in found])


def test_a_receiver_can_verify_who_sent_a_decision_and_when(hook: WebhookReceiver) -> None:
    delivery = opened(hook.url, token_env="HOOK_TOKEN")  # noqa: S106 - a name
    assert delivery.send(batch(1)) == []
    delivery.close()
    (request,) = hook.accepted
    headers = request.headers
    assert (headers["webhook-id"], headers["idempotency-key"]) == (decision_id(0), decision_id(0))
    assert headers["webhook-timestamp"] == "1760000000"
    assert headers["authorization"] == "Bearer t0ken"
    assert headers["content-type"] == "application/json"
    signed = f"{decision_id(0)}.1760000000.{request.body.decode()}".encode()
    expected = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in (KEY, NEXT_KEY)]
    assert headers["webhook-signature"] == f"v1,{expected[0]} v1,{expected[1]}"


@pytest.mark.parametrize("status", [400, 409, 413, 415, 422])
def test_a_status_about_the_decision_refuses_it_and_no_other(hook: WebhookReceiver, status: int) -> None:
    refused = decision_id(3)
    hook.answer = lambda request: HookReply(status if request.headers["webhook-id"] == refused else 204)
    delivery = opened(hook.url)
    (refusal,) = delivery.send(batch(6))
    delivery.close()
    assert (refusal.id, refusal.position, refusal.reason) == (refused, 3, f"the receiver answered with status {status}")
    assert len(hook.accepted) == 5


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 410, 429, 500, 503])
def test_any_other_status_is_an_outage_and_a_redirect_is_not_followed(hook: WebhookReceiver, status: int) -> None:
    hook.answer = lambda _: HookReply(status, headers={"Location": hook.url, "Retry-After": "7"})
    delivery = opened(hook.url)
    with pytest.raises(StoreError, match=f"webhook 'out' at 127.0.0.1: answered with status {status}"):
        delivery.send(batch(1))
    assert delivery.retry_after_s == 7.0
    assert len(hook.requests) == 1
    delivery.close()


def test_after_an_outage_only_the_rest_of_a_batch_is_sent(hook: WebhookReceiver) -> None:
    left = {decision_id(2)}
    hook.answer = lambda request: HookReply(503 if request.headers["webhook-id"] in left else 200)
    delivery = opened(hook.url, key="card", connections=2)
    with pytest.raises(StoreError):
        delivery.send(batch(10))
    before = [request.headers["webhook-id"] for request in hook.accepted]
    left.clear()
    assert delivery.send(batch(10)) == []
    delivery.close()
    after = [request.headers["webhook-id"] for request in hook.accepted]
    assert sorted(after) == sorted(decision_id(position) for position in range(10))
    assert after[: len(before)] == before
    assert after.index(decision_id(2)) < after.index(decision_id(7))  # of one card


def test_a_decision_that_breaks_the_receiver_is_given_up_after_its_attempts(hook: WebhookReceiver) -> None:
    hook.answer = lambda request: HookReply(500 if request.headers["webhook-id"] == decision_id(0) else 200)
    delivery = opened(hook.url, most_attempts=3)
    for _ in range(2):
        with pytest.raises(StoreError):
            delivery.send(batch(2))
    (refusal,) = delivery.send(batch(2))
    delivery.close()
    assert refusal.reason == "the receiver answered with status 500"
    assert [request.headers["webhook-id"] for request in hook.accepted] == [decision_id(1)]


def test_a_name_that_resolves_to_this_machine_is_not_connected_to(
    hook: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", hook.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    sink = replace(declared(hook.url), url=f"http://cases.shop.com:{hook.port}/x", allow_http=True)
    delivery = WebhookDelivery(sink, JsonMessages(), ENVIRONMENT)
    with pytest.raises(
        StoreError, match=r"webhook 'out' at cases.shop.com: resolves to an address that is not allowed"
    ):
        delivery.send(batch(1))
    delivery.close()
    assert hook.requests == []
    listed = SinkHosts(("cases.shop.com", "127.0.0.1"))
    delivery = WebhookDelivery(sink, JsonMessages(), ENVIRONMENT, hosts=listed)
    assert delivery.send(batch(1)) == []
    delivery.close()
    assert len(hook.accepted) == 1


def test_a_reply_without_end_is_not_read(hook: WebhookReceiver) -> None:
    hook.answer = lambda _: HookReply(200, b" " * 5_000_000)
    delivery = opened(hook.url, connections=1)
    assert delivery.send(batch(2)) == []
    delivery.close()
    assert len(hook.requests) == 2


def test_a_receiver_that_does_not_answer_in_time_is_an_outage(hook: WebhookReceiver) -> None:
    end = threading.Event()
    hook.answer = lambda _: HookReply(200, wait=end)
    delivery = opened(hook.url, timeout_s=0.1)
    with pytest.raises(StoreError, match=r"did not answer in 0.1 s"):
        delivery.send(batch(1))
    end.set()
    delivery.close()


def test_a_receiver_that_answers_nonsense_is_an_outage() -> None:
    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(b"\xff\xfe not HTTP\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        delivery = opened(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(StoreError, match="cannot be reached"):
            delivery.send(batch(1))
        delivery.close()
        thread.join()


@pytest.mark.parametrize(
    "secret", ["", "  ", "whsec_", "c2hvcnQ=", "not base64!", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw short"]
)
def test_a_secret_that_is_missing_or_weak_is_an_error_without_its_value(secret: str) -> None:
    with pytest.raises(DefinitionError, match="environment variable 'HOOK_SECRET' of sink 'out'") as refusal:
        WebhookDelivery(declared("https://h"), JsonMessages(), {"HOOK_SECRET": secret})
    assert "short" not in str(refusal.value)
    assert "base64!" not in str(refusal.value)


def test_requests_of_different_keys_run_at_the_same_time(hook: WebhookReceiver) -> None:
    at_once, barrier = [], threading.Barrier(2, timeout=30)

    def answer(request: Request) -> HookReply:
        at_once.append(request.headers["webhook-id"])
        if len(at_once) <= 2:
            barrier.wait()
        return HookReply()

    hook.answer = answer
    delivery = opened(hook.url, key="card", connections=8)
    assert delivery.send(batch(5)) == []
    delivery.close()
    assert len(hook.accepted) == 5
