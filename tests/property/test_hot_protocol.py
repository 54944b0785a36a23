"""However requests are cut into pieces, every one is answered, once and in order."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.serving.http.wire import Wire, on_a_wire, request

PATHS = st.sampled_from(["/now", "/n%6fw", "/now?a=b", "/named/x", "/cold", "/cold?now"])
_NEW_ID = re.compile(rb"x-request-id: [0-9a-f]{16}")  # of errors
REQUESTS = st.lists(st.tuples(PATHS, st.binary(max_size=100), st.booleans()), min_size=1, max_size=6)


def sent(path: str, body: bytes, *, chunked: bool) -> bytes:
    if not chunked:
        return request(path, body)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:]) if part)
    return f"POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


async def feed(wire: Wire, parts: Sequence[bytes], pauses: Sequence[bool]) -> None:
    """Hand over parts, with or without a chance to answer in between."""
    for part, pause in zip(parts, pauses, strict=True):
        wire.protocol.data_received(part)
        if pause:
            await asyncio.sleep(0)
    await wire.send(b"")


@given(REQUESTS, st.data())
def test_every_request_is_answered_in_order(requests: list[tuple[str, bytes, bool]], data: st.DataObject) -> None:
    whole = b"".join(sent(path, body, chunked=chunked) for path, body, chunked in requests)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=20)))
    parts = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    pauses = data.draw(st.lists(st.booleans(), min_size=len(parts), max_size=len(parts)))
    wire = on_a_wire(lambda wire: feed(wire, parts, pauses))
    bodies = wire.bodies()
    assert [int(body.split()[-1]) for body in bodies] == [len(body) for _, body, _ in requests]
    for (path, _, _), body in zip(requests, bodies, strict=True):
        assert body.startswith((b"now ", b"cold POST /n")) != path.startswith("/cold")
    assert (wire.transport.closed, wire.state.total_requests) == (False, len(requests))


HEADERS = st.sampled_from([(), (), ("x-a: b",), ("x-stranger: 1",), ("x-request-id: 7",), ("expect: 100-continue",)])


SIZES = st.sampled_from([0, 1, 9, 10, 100, 101])


@given(st.lists(st.tuples(PATHS, HEADERS), min_size=1, max_size=2), st.lists(SIZES, min_size=3, max_size=8), st.data())
def test_a_head_that_comes_again_has_its_meaning(
    heads: list[tuple[str, tuple[str, ...]]], sizes: list[int], data: st.DataObject
) -> None:
    """A connection that remembers a head serves the same requests as one that parses every head."""
    chosen = [(*data.draw(st.sampled_from(heads)), b"x" * size) for size in sizes]
    parts = [request(path, body, *headers) for path, headers, body in chosen]
    for place, part in enumerate(parts):
        if data.draw(st.integers(0, 5)) == 0:  # a length that is not the body's, other digits, half a request
            changed = part.replace(b"length: ", data.draw(st.sampled_from([b"length: 0", b"length: 1", b"length:  "])))
            parts[place] = data.draw(st.sampled_from([changed, part[:-1], b"\r\n" + part]))

    async def steps(wire: Wire) -> None:
        for part in parts:
            if not wire.transport.closed:
                await wire.send(part)

    async def parsed_steps(wire: Wire) -> None:
        wire.protocol.repeat_request = lambda *_: False  # type: ignore[method-assign]
        await steps(wire)

    wire, parsed = on_a_wire(steps), on_a_wire(parsed_steps)
    seen, expected = ([(e.path, e.query, e.headers, e.body, e.caller) for e in w.exchanges] for w in (wire, parsed))
    assert seen == expected
    written, expected_bytes = (_NEW_ID.sub(b"", b"".join(each.transport.written)) for each in (wire, parsed))
    assert (written, wire.transport.closed) == (expected_bytes, parsed.transport.closed)


@given(st.binary(max_size=300), st.integers(1, 300))
async def test_no_bytes_bring_it_down(garbage: bytes, size: int) -> None:
    """Whatever comes, the connection goes on, or ends with an answer."""
    wire = Wire()
    await wire.send(request("/now"))
    for start in range(0, len(garbage), size):
        if not wire.transport.closed:
            wire.protocol.data_received(garbage[start : start + size])
    assert wire.bodies()[0] == b"now 0"
    if wire.transport.closed:
        assert wire.replies()[-1].headers["connection"] == "close"
