"""The gRPC grpc_port: replies, errors, limits, slow clients, cancelled calls, and the end of the server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import grpc
import pytest

from plugins.grpc.tests.rig import PATIENCE_S, GrpcPort, reply_of, serving
from skewless.contract.errors import AccessError, RequestError
from skewless.serving.access.caller import ANYONE, Caller
from skewless.serving.access.certificate import PeerCertificate
from skewless.serving.access.gate import Headers
from skewless.serving.http.hot_routes import admit_anyone
from skewless.serving.http.wire_limits import WireLimits
from skewless_grpc import server
from skewless_grpc.calls import GrpcCall, GrpcMethod
from tests.worlds.waiting import until

ECHO, HELD, BROKEN, LOCKED = (f"/t.T/{name}" for name in ("Echo", "Held", "Broken", "Locked"))
HELD_CALLS: list[GrpcCall] = []


def _break(_: GrpcCall, message: bytes) -> None:
    if message == b"ours":
        raise RequestError("field 'x'", "is wrong", value="ä\n", fix="correct it")
    raise ValueError("a secret of the server")


def _refuse(headers: Headers, _: PeerCertificate | None) -> Caller:
    if (b"x-api-key", b"k") in headers:
        return ANYONE
    raise AccessError("API key", "is missing", fix="send it")


METHODS = {
    ECHO: GrpcMethod(admit=admit_anyone, handle=lambda call, message: call.reply(message)),
    HELD: GrpcMethod(admit=admit_anyone, handle=lambda call, _: HELD_CALLS.append(call)),
    BROKEN: GrpcMethod(admit=admit_anyone, handle=_break),
    LOCKED: GrpcMethod(admit=_refuse, handle=lambda call, message: call.reply(message)),
}


@pytest.fixture(scope="module")
def grpc_port() -> Iterator[GrpcPort]:
    with serving(METHODS, WireLimits(body_bytes=10_000, request_seconds=1.0)) as grpc_port:
        yield grpc_port


def test_messages_come_through_unchanged_and_in_any_number(grpc_port: GrpcPort) -> None:
    with grpc_port.channel() as channel:
        method = channel.unary_unary(ECHO)
        messages = [bytes([i % 256]) * (i * 31 % 10_000) for i in range(200)]
        assert [method(message) for message in messages] == messages
        futures = [method.future(message) for message in messages]
        assert [future.result(PATIENCE_S) for future in futures] == messages


def test_an_unknown_method_is_named(grpc_port: GrpcPort) -> None:
    reply = grpc_port.ask("/t.T/Other")
    assert (reply.code, reply.text) == (
        "UNIMPLEMENTED",
        "the method: is unknown (got 'Other'). Fix: see docs/oip.md, gRPC",
    )


def test_errors_are_one_sentence_and_defects_tell_nothing(grpc_port: GrpcPort) -> None:
    reply = grpc_port.ask(BROKEN, b"ours")
    assert (reply.code, reply.text) == ("INVALID_ARGUMENT", r"field 'x': is wrong (got 'ä\n'). Fix: correct it")
    reply = grpc_port.ask(BROKEN, b"other")
    assert (reply.code, reply.text) == ("INTERNAL", "the server: failed on this request. Fix: see its log")


def test_a_call_without_a_key_is_rejected_before_its_message_is_read(grpc_port: GrpcPort) -> None:
    assert grpc_port.ask(LOCKED, b"x", metadata=[("x-api-key", "k")]).message == b"x"
    assert grpc_port.ask(LOCKED, b"x").code == "UNAUTHENTICATED"
    with grpc_port.channel() as channel:
        call = channel.stream_unary(LOCKED).future(iter(never_ending()), timeout=PATIENCE_S)
        assert call.exception(PATIENCE_S).code().name == "UNAUTHENTICATED"


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_message_that_is_too_long_is_rejected_also_if_it_is_only_long_when_decompressed(
    grpc_port: GrpcPort, compression: grpc.Compression | None
) -> None:
    assert len(grpc_port.ask(ECHO, bytes(10_000), compression=compression).message) == 10_000
    reply = grpc_port.ask(ECHO, bytes(10_001 if compression is None else 100_000_000), compression=compression)
    assert (reply.code, "larger than max" in reply.text) == ("RESOURCE_EXHAUSTED", True)


def test_metadata_that_are_too_long_are_rejected(grpc_port: GrpcPort) -> None:
    assert grpc_port.ask(ECHO, metadata=[("x", "a" * 10_000)]).code == "OK"
    assert grpc_port.ask(ECHO, metadata=[("x", "a" * 70_000)]).code == "RESOURCE_EXHAUSTED"


def test_clients_that_never_send_hold_nobody_up_and_are_cut_off(grpc_port: GrpcPort) -> None:
    with grpc_port.channel() as channel:
        slow = [channel.stream_unary(ECHO).future(iter(never_ending()), timeout=PATIENCE_S) for _ in range(16)]
        assert grpc_port.ask(ECHO, b"x").message == b"x"
        assert {call.exception(PATIENCE_S).code().name for call in slow} == {"CANCELLED"}
    assert grpc_port.ask(ECHO, b"x").message == b"x"


def test_a_call_of_no_message_is_told_so(grpc_port: GrpcPort) -> None:
    with grpc_port.channel() as channel, pytest.raises(grpc.RpcError) as failure:
        channel.stream_unary(ECHO)(iter(()), timeout=PATIENCE_S)
    assert "has no message" in str(failure.value)


def test_a_cancelled_call_and_one_past_its_deadline_are_disconnected(grpc_port: GrpcPort) -> None:
    HELD_CALLS.clear()
    with grpc_port.channel() as channel:
        future = channel.unary_unary(HELD).future(b"x", timeout=PATIENCE_S)
        until(lambda: len(HELD_CALLS) == 1)
        assert not HELD_CALLS[0].disconnected
        future.cancel()
        until(lambda: HELD_CALLS[0].disconnected)
        grpc_port.run(lambda: HELD_CALLS[0].reply(b"nobody reads this"))
        assert reply_of(channel.unary_unary(HELD), b"x", timeout=0.2).code == "DEADLINE_EXCEEDED"
        until(lambda: len(HELD_CALLS) == 2 and HELD_CALLS[1].disconnected)


def test_a_deadline_becomes_that_of_the_exchange(grpc_port: GrpcPort) -> None:
    deadlines: list[float | None] = []
    HELD_CALLS.clear()
    with grpc_port.channel() as channel:
        for timeout in (None, 5.0):
            future = channel.unary_unary(HELD).future(b"x", timeout=timeout)
            until(lambda: len(HELD_CALLS) == 1)
            call, now = HELD_CALLS.pop(), grpc_port.loop.time()

            def reply(call: GrpcCall = call) -> None:
                deadlines.append(call.exchange(b"").deadline)
                call.reply(b"")

            grpc_port.run(reply)
            future.result(PATIENCE_S)
    assert deadlines[0] is None
    assert deadlines[1] is not None
    assert now < deadlines[1] < now + 5.1


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        bytes(range(256)) * 40,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 9_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" * 2_000,  # settings, again and again
    ],
    ids=["HTTP/1.1", "bytes", "frames", "settings"],
)
def test_a_connection_of_noise_hurts_no_other(grpc_port: GrpcPort, noise: bytes) -> None:
    host, _, port = grpc_port.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection, suppress(OSError):
        connection.sendall(noise)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass
    assert grpc_port.ask(ECHO, b"x").message == b"x"


def test_more_open_calls_than_the_limit_are_rejected(grpc_port: GrpcPort, monkeypatch: pytest.MonkeyPatch) -> None:
    HELD_CALLS.clear()
    monkeypatch.setattr(server, "_MAX_CALLS", 2)
    with grpc_port.channel() as channel:
        held = [channel.unary_unary(HELD).future(b"x", timeout=PATIENCE_S) for _ in range(2)]
        until(lambda: len(HELD_CALLS) == 2)
        reply = grpc_port.ask(ECHO)
        assert (reply.code, reply.metadata["retry-after"]) == ("UNAVAILABLE", "1")
        for call in HELD_CALLS:
            grpc_port.run(lambda call=call: call.reply(b""))  # type: ignore[misc]
        assert [future.result(PATIENCE_S) for future in held] == [b"", b""]
    until(lambda: grpc_port.ask(ECHO).code == "OK")


def test_a_shutdown_completes_calls_in_progress_and_ends_those_that_wait_for_the_client() -> None:
    HELD_CALLS.clear()
    with serving(METHODS) as grpc_port, grpc_port.channel() as channel:
        held = channel.unary_unary(HELD).future(b"x", timeout=PATIENCE_S)
        slow = channel.stream_unary(ECHO).future(iter(never_ending()), timeout=PATIENCE_S)
        until(lambda: len(HELD_CALLS) == 1)
        grpc_port.run(grpc_port.shutdown.request)
        assert slow.exception(PATIENCE_S).code().name == "UNAVAILABLE"
        assert not grpc_port.stopped.is_set()
        grpc_port.run(lambda: HELD_CALLS[0].reply(b"last"))
        assert held.result(PATIENCE_S) == b"last"
        assert grpc_port.stopped.wait(PATIENCE_S)
        assert grpc_port.ask(ECHO, timeout=5).code == "UNAVAILABLE"


def test_a_forced_shutdown_waits_for_nobody() -> None:
    HELD_CALLS.clear()
    with serving(METHODS) as grpc_port, grpc_port.channel() as channel:
        held = channel.unary_unary(HELD).future(b"x", timeout=PATIENCE_S)
        until(lambda: len(HELD_CALLS) == 1)
        grpc_port.run(grpc_port.shutdown.force)
        assert grpc_port.stopped.wait(PATIENCE_S)
        assert held.exception(PATIENCE_S).code().name in {"CANCELLED", "UNAVAILABLE"}


def never_ending() -> Iterator[bytes]:
    """Yield nothing, for as long as a client may take."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and threading.main_thread().is_alive():
        time.sleep(0.05)
    yield b""
