"""Connections: kept, dropped, shared; replies in every form of HTTP/1.1; keys; TLS."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from skewless.client import Client, Limits
from skewless.contract.errors import RequestError, StoreError
from tests.integration.client.conftest import Connect
from tests.integration.client.scripted import BROKEN, GOOD, HELD, PREDICTED, answer, lines, nobody, refusal, scripted

ROW = {"card_id": 7}
BODY = json.dumps(PREDICTED).encode()
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (
    5,
    BODY[:5],
    len(BODY) - 5,
    BODY[5:],
)
KEY = "sk-secret-1234"


def test_one_connection_carries_many_calls(connect: Connect) -> None:
    with scripted(GOOD) as server:
        face = connect(server.url)
        for _ in range(5):
            face.ask("predict", [ROW])
        assert (server.connections, len(server.asked)) == (1, 5)


def test_a_connection_that_the_server_closed_meanwhile_is_not_used(connect: Connect) -> None:
    taken = answer(202, {"accepted_for": 1})
    with scripted(taken) as server:
        face = connect(server.url)
        for _ in range(3):
            face.ask("send_events", "s", [{"x": 1}])
            server.hang_up()
            face.ask_at_once(0, "live")  # lets the event loop hear of it
            time.sleep(0.01)
        assert server.connections == len(server.asked) == 3


def test_a_connection_that_lay_too_long_is_not_used(connect: Connect) -> None:
    with scripted(GOOD) as server:
        face = connect(server.url, limits=Limits(idle_s=0.05))
        for _ in range(2):
            face.ask("predict", [ROW])
            time.sleep(0.2)
        assert [one.connection for one in server.asked] == [1, 2]


def test_a_connection_that_ends_as_it_is_used_again_costs_an_attempt(connect: Connect) -> None:
    with scripted(GOOD, BROKEN, GOOD) as server:
        face = connect(server.url)
        assert [face.ask("predict", [ROW]).scores for _ in range(2)] == [[0.25]] * 2
        assert [one.connection for one in server.asked] == [1, 1, 2]


def test_a_second_reply_to_one_request_answers_no_other(connect: Connect) -> None:
    other = answer(200, {**PREDICTED, "predictions": [{"id": "a-2", "score": 0.75}]})
    with scripted(GOOD + other, GOOD) as server:
        face = connect(server.url)
        assert [face.ask("predict", [ROW]).scores for _ in range(2)] == [[0.25]] * 2


def test_calls_side_by_side_have_connections_of_their_own(connect: Connect) -> None:
    with scripted(GOOD) as server:
        face = connect(server.url, limits=Limits(connections=4))
        answers = [reply.scores for reply in face.ask_at_once(40, "predict", [ROW])]
        assert answers == [[0.25]] * 40
        assert 1 <= server.connections <= 40


@pytest.mark.parametrize(
    ("reply", "connections"),
    [
        (CHUNKED, 1),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD, 1),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY, 2),
        (answer(200, PREDICTED, "Connection: close"), 2),
    ],
)
def test_every_form_of_a_reply_is_read(connect: Connect, reply: bytes, connections: int) -> None:
    with scripted(reply) as server:
        face = connect(server.url)
        assert [face.ask("predict", [ROW]).scores for _ in range(2)] == [[0.25]] * 2
        assert server.connections == connections


@pytest.mark.parametrize("body", ["hello", {"other": 1}, {**PREDICTED, "predictions": []}])
def test_what_is_not_the_api_is_said(connect: Connect, body: object) -> None:
    with (
        scripted(answer(200, body)) as server,
        pytest.raises(StoreError, match=r"sent an unexpected reply .got 200"),
    ):
        connect(server.url).ask("predict", [ROW])


@pytest.mark.parametrize(("status", "error"), [(301, StoreError), (404, RequestError), (502, StoreError)])
def test_a_refusal_of_somebody_between_is_said(connect: Connect, status: int, error: type[Exception]) -> None:
    page = b"HTTP/1.1 %d X\r\nLocation: /models\r\nContent-Length: 6\r\n\r\n<html>" % status
    with scripted(page) as server:
        with pytest.raises(error, match=f"rejected the request without a reason .got {status}"):
            connect(server.url).ask("models")
        assert len(server.asked) == 1


def test_a_refusal_that_comes_before_the_body_is_sent_is_read(connect: Connect) -> None:
    refused = refusal(413, "request", "Connection: close")
    with scripted(refused, reads=False) as server, pytest.raises(RequestError, match="the thing: is wrong"):
        connect(server.url).ask("predict", [{"text": "x" * 8_000_000}])


def test_a_large_body_is_sent_whole(connect: Connect) -> None:
    with scripted(GOOD) as server:
        row = {"text": "x" * 2_000_000}
        assert connect(server.url).ask("predict", [row]).scores == [0.25]
        assert server.asked[0].body == {"rows": [row]}


def test_proxies_and_passwords_of_the_environment_are_not_used(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("default login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, nobody())
    with scripted(GOOD) as server:
        assert connect(server.url).ask("predict", [ROW]).scores == [0.25]
        assert "authorization" not in server.asked[0].headers


def test_the_key_goes_to_the_server_and_nowhere_else(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with scripted(answer(404, {})) as server:
        face = connect(server.url, key=KEY)
        with pytest.raises(RequestError) as caught:
            face.ask("model", "m")
        assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
        assert KEY not in f"{caught.value!r} {caught.value} {face.shown()} {caplog.text}"


def test_the_key_may_come_from_the_environment(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKEWLESS_API_KEY", KEY)
    with scripted(answer(200, {"live": True})) as server:
        assert connect(server.url).ask("live")
        assert connect(server.url, key="").ask("live")
        assert [one.headers.get("authorization") for one in server.asked] == [f"Bearer {KEY}", None]


def test_a_key_that_would_break_the_request_is_refused(connect: Connect) -> None:
    with pytest.raises(RequestError, match="API key: has an invalid character") as caught:
        connect("http://h", key=f"{KEY}\r\nx: y")
    assert KEY not in str(caught.value)


def test_a_prefix_and_odd_names_are_kept(connect: Connect) -> None:
    with scripted(answer(200, {"model": "a b", "version": "1"})) as server:
        assert connect(f"{server.url}/v1/").ask("model", "a b/ü").name == "a b"
        assert lines(server.asked) == ["GET /v1/models/a%20b%2F%C3%BC HTTP/1.1"]


def test_a_closed_client_says_so(connect: Connect) -> None:
    with scripted(GOOD) as server:
        face = connect(server.url)
        face.ask("predict", [ROW])
        face.ask("close") if hasattr(face, "runner") else face.close()
        with pytest.raises(RequestError, match="client: is closed"):
            face.ask("predict", [ROW])


def test_a_call_under_way_ends_when_its_client_is_closed() -> None:
    with scripted(HELD) as server, ThreadPoolExecutor(1) as thread:
        client = Client(server.url)
        call = thread.submit(client.predict, [ROW])
        while not server.asked:
            time.sleep(0.001)
        client.close()
        server.release.set()
        assert call.result(20).scores == [0.25]


def test_tls_is_spoken_and_checked(connect: Connect, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine to make a certificate with")
    name, key = tmp_path / "server.crt", tmp_path / "server.key"
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=scores"]
    extra = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(name)]
    subprocess.run([openssl, *request, *extra], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(name, key)
    with scripted(GOOD, tls=tls) as server:
        face = connect(server.url, tls=ssl.create_default_context(cafile=str(name)))
        assert [face.ask("predict", [ROW]).scores for _ in range(2)] == [[0.25]] * 2
        assert server.connections <= 2
        with pytest.raises(StoreError, match="certificate verify failed"):
            connect(server.url).ask("predict", [ROW])
        other_name = server.url.replace("127.0.0.1", "localhost")
        with pytest.raises(StoreError, match="certificate verify failed"):
            connect(other_name, tls=ssl.create_default_context(cafile=str(name))).ask("predict", [ROW])
        any_name = ssl.create_default_context(cafile=str(name))
        any_name.check_hostname = False
        assert connect(other_name, tls=any_name).ask("predict", [ROW]).scores == [0.25]
