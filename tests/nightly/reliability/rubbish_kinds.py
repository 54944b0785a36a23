"""Kinds of requests that no honest client sends, and the statuses that each may get."""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson

from benchmarks.http_wire import body_of, get, is_whole, post
from tests.nightly.reliability import hostile
from tests.nightly.reliability.open_load import Target
from tests.nightly.worlds.served import LENIENT
from tests.unit.serving.http import raw_http
from tests.worlds.trained import ask

PREDICT, INFER = "/predict", f"/v2/models/{LENIENT}/infer"
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_REPLIES = re.compile(rb"(?=HTTP/1\.1 \d{3} )")
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Site:
    """The server under fire, and the callers that it knows.

    Args:
        target: its HTTP port.
        grpc: its gRPC port.
        headers: of a caller with the scope ``predict``.
        greedy: of a caller with a rate, which it exceeds.
        unknown: how someone without a key connects.
    """

    target: Target
    grpc: tuple[str, int]
    headers: Mapping[str, str]
    greedy: Mapping[str, str]
    unknown: Target

    def predict(self, body: object, path: str = PREDICT, **headers: str) -> bytes:
        """Return a request of the known caller; what is not bytes is sent as JSON."""
        sent = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return post(path, body if isinstance(body, bytes) else orjson.dumps(body), sent)

    def good(self, first: int = 0, **fields: object) -> bytes:
        """Return a request that is answered."""
        return self.predict({"model": LENIENT, "rows": ask(1, first), **fields})


@dataclass(frozen=True)
class RubbishKind:
    """A kind of rubbish.

    Args:
        parts: returns what one client sends.
        statuses: that the replies may have.
        is_incomplete: whether the server may wait for more.
        target: where it is sent.
    """

    parts: Callable[[Site, random.Random], Iterable[bytes]]
    statuses: frozenset[int]
    is_incomplete: bool = False
    target: Callable[[Site], Target] = lambda site: site.target

    def problem(self, said: bytes) -> str | None:
        """Return why the replies are wrong; none at all is a closed connection."""
        if said and not STATUS.match(said):
            return "no HTTP"
        for reply in _REPLIES.split(said)[1:]:
            status = int(reply[9:12])
            if status not in self.statuses:
                return f"status {status}"
            if status >= 400 and is_whole(reply) and (body := body_of(reply)) and not _is_error(body):
                return "no error"
        return None


def _is_error(body: bytes) -> bool:
    error = orjson.loads(body).get("error")
    return isinstance(error if isinstance(error, str) else error["message"], str)


# What is not HTTP, or nearly


def _broken_http(site: Site, chance: random.Random) -> Iterable[bytes]:
    made = raw_http.case(chance)
    targets = {b"/hot": PREDICT.encode(), b"/cold": b"/models", b"/early": INFER.encode()}
    headers = "".join(f"{name}: {value}\r\n" for name, value in site.headers.items()).encode()
    for piece in made.pieces:
        text = piece
        for old, new in targets.items():
            text = text.replace(old, new)
        yield text.replace(b"host: x\r\n", b"host: x\r\n" + headers)


def _garbage(_: Site, chance: random.Random) -> Iterable[bytes]:
    yield chance.randbytes(chance.choice([1, 20, 1_000, 100_000]))


def _other_protocol(_: Site, chance: random.Random) -> Iterable[bytes]:
    hello = bytes.fromhex("16030100c8010000c40303") + chance.randbytes(200)
    yield chance.choice(
        [
            hello,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"EHLO x\r\n",
            b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        ]
    )


def _framing(site: Site, chance: random.Random) -> Iterable[bytes]:
    good = site.good()
    length = re.search(rb"content-length: \d+\r\n", good)
    assert length is not None
    lines = [
        b"content-length: 3\r\n" + length[0],
        length[0] + b"transfer-encoding: chunked\r\n",
        b"transfer-encoding: gzip, chunked\r\n",
        b"transfer-encoding: identity\r\n",
        length[0].replace(b": ", b": -"),
        length[0].replace(b": ", b": +"),
        b"content-length: 99999999999999999999999\r\n",
        length[0] + b"host: other\r\n",
        length[0] + b"broken\r\n",
        length[0] + b"x: a\0b\r\n",
        length[0].replace(b"content-length:", b"content-length :"),
    ]
    versions = [b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3"]
    changed = [good.replace(length[0], line) for line in lines] + [good.replace(b"HTTP/1.1", v) for v in versions]
    yield chance.choice([*changed, good.replace(b"host: 127.0.0.1\r\n", b""), good.replace(b"POST", b"CONNECT")])


def _chunks(site: Site, chance: random.Random) -> Iterable[bytes]:
    yield re.sub(rb"content-length: \d+", b"transfer-encoding: chunked", site.good()).partition(b"{")[0]
    yield chance.choice([b"zz\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"2\r\n{}x", b"2 \r\n{}\r\n", b"\r\n\r\n"])


def _pipeline(site: Site, chance: random.Random) -> Iterable[bytes]:
    yield site.good() * chance.choice([1, 10, 1_000]) + b"\0 rubbish\r\n\r\n"


def _longer_than_said(site: Site, _: random.Random) -> Iterable[bytes]:
    good = site.good()
    length = int(re.findall(rb"content-length: (\d+)", good)[0])
    yield good.replace(b"content-length: %d" % length, b"content-length: %d" % (length // 2))


def _upgrade(site: Site, chance: random.Random) -> Iterable[bytes]:
    websocket = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
    }
    h2c = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQAAP__"}
    headers = {**site.headers, **chance.choice([websocket, h2c])}
    yield chance.choice([get("/models", headers), get(PREDICT, headers), site.predict({}, **headers)])


# What is too much


def _huge(site: Site, chance: random.Random) -> Iterable[bytes]:
    path = chance.choice([PREDICT, INFER])
    return hostile.huge(path, site.headers, chunked=chance.random() < 0.5)


def _long_head(site: Site, chance: random.Random) -> Iterable[bytes]:
    path = chance.choice([PREDICT, INFER])
    return chance.choice([hostile.many_headers, hostile.long_header, hostile.long_target])(path, site.headers)


def _json_bomb(site: Site, chance: random.Random) -> Iterable[bytes]:
    body = b'{"model": "%b", "rows": [{"card_id": %b, "shop_id": "s", "amount": 1, "paid_at": 0}]}'
    row = ask(1)[0]
    yield site.predict(
        chance.choice(
            [
                b'{"rows": ' + b"[" * 100_000,
                b'{"rows": ' + b'{"a":' * 100_000,
                b"[" * 1_500 + b"]" * 1_500,
                body % (LENIENT.encode(), b"1" * 1_000_000),
                body % (LENIENT.encode(), b"1" * 100_000 + b".5"),
                body % (LENIENT.encode(), b"1e999999999"),
                {"model": LENIENT, "rows": [row | {f"x{i}": i for i in range(50_000)}]},
                {"model": LENIENT, "rows": [row] * 10_001},
                {"model": LENIENT, "rows": [row | {"card_id": "9" * _MIB}]},
            ]
        ),
        chance.choice([PREDICT, INFER]),
    )


@cache
def _packed_zeros() -> bytes:
    return gzip.compress(bytes(64 * _MIB), compresslevel=1)


def _gzip_bomb(site: Site, chance: random.Random) -> Iterable[bytes]:
    packed = _packed_zeros()
    yield site.predict(packed[: chance.choice([len(packed), 100])], INFER, content_encoding="gzip")


# What is no request for a prediction


def _wrong_json(site: Site, chance: random.Random) -> Iterable[bytes]:
    body = orjson.dumps({"model": LENIENT, "rows": ask(1)})
    changed = [body[: chance.randrange(1, len(body))], b"", b"null", b"[]", b"5", b'"x"', b"\xff\xfe", b"{}" * 2]
    changed += [body + b"x", body.replace(b"3.7", b"NaN"), body.replace(b"3.7", b"-Infinity"), body.replace(b":", b"")]
    changed += [body.replace(b"shop-", b"\xed\xa0\x80"), body.replace(b"shop-", b"\\ud800"), b"\0" + body]
    yield site.predict(chance.choice(changed), chance.choice([PREDICT, INFER]))


_WRONG_VALUES: Mapping[str, Sequence[object]] = {
    "card_id": ["x", 1.5, [], {}, True, "9" * 40, "0x10"],
    "shop_id": [5, [], {}, True, 1.5],
    "amount": ["x", [], {}, True],
    "paid_at": ["yesterday", [], {}, True, 1.5, "2026-13-01T00:00:00Z"],
}


def _wrong_types(site: Site, chance: random.Random) -> Iterable[bytes]:
    row: dict[str, Any] = ask(1, chance.randrange(100))[0]
    name = chance.choice(sorted(_WRONG_VALUES))
    good = {"model": LENIENT, "rows": [row]}
    yield site.predict(
        chance.choice(
            [
                good | {"rows": [row, row | {name: chance.choice(_WRONG_VALUES[name])}]},
                good | {"rows": chance.choice([5, {}, "x", [5], [[]], [None]])},
                good | {"rows": [row | {"unknown": 1}]},
                good | {"model": chance.choice([5, [], {}])},
                good | {"features": chance.choice([5, "yes", []])},
                good | {"as_of": chance.choice(["x", [], "9999-01-01T00:00:00Z", 1.5])},
                good | {"timeout_us": chance.choice(["x", -1, 0, []])},
                good | {"unknown": 1},
            ]
        )
    )


def _wrong_tensors(site: Site, chance: random.Random) -> Iterable[bytes]:
    if chance.random() < 0.5:
        lengths = [(8, b"abc"), (8, b""), (3, b"abc"), (8, b"12345678abc"), (-1, b"12345678"), (1 << 62, b"1")]
        return hostile.truncated_tensor(INFER, *chance.choice(lengths), site.headers)
    tensor: dict[str, Any] = {"name": "card_id", "shape": [1], "datatype": "INT64", "data": [1]}
    change: list[dict[str, Any]] = [
        {"shape": [2]},
        {"shape": [-1]},
        {"shape": [1 << 40]},
        {"shape": "x"},
        {"datatype": "FP99"},
        {"datatype": 5},
        {"data": ["x"]},
        {"data": [[[[1]]]]},
        {"name": 5},
        {"name": "none"},
        {},
    ]
    return [site.predict({"inputs": [tensor | chance.choice(change)]}, INFER)]


def _unknown_entity(site: Site, chance: random.Random) -> Iterable[bytes]:
    shop = chance.choice(["", "\0", "ü" * 1_000, "shop-07\n", "' OR 1=1 --"])
    row = ask(1)[0] | {"card_id": chance.choice([None, -1, 0, -(1 << 63), (1 << 63) - 1]), "shop_id": shop}
    row["amount"] = chance.choice([None, 1e308, -0.0, 5e-324])
    yield site.predict({"model": LENIENT, "rows": [row], "as_of": chance.choice([None, 0, -1, "0001-01-01T00:00:00Z"])})


def _unknown_name(site: Site, chance: random.Random) -> Iterable[bytes]:
    yield chance.choice(
        [
            site.predict({"model": "none" * chance.choice([1, _MIB]), "rows": ask(1)}),
            site.predict({"model": LENIENT, "version": "999999", "rows": ask(1)}),
            site.predict({}, "/v2/models/none/infer"),
            site.predict({}, "/none"),
            *(get(path, site.headers) for path in ("/../../etc/passwd", "/%00", "/models/%2e%2e%2f", "//", "/v2/x")),
            get("/models/" + "x" * 30_000, site.headers),
            get(PREDICT, site.headers),
            site.predict({}, "/models"),
            site.predict({}, "/health/live"),
        ]
    )


# Whom the server does not know


def _wrong_key(_: Site, chance: random.Random) -> Iterable[bytes]:
    keys = ["x", "sk_honest_" + "A" * 43, "sk_" + "x" * 10_000, "Bearer", "\xff" * 40, "a.b.c"]
    name = chance.choice(["x-api-key", "authorization"])
    value = ("Bearer " if name == "authorization" else "") + chance.choice(keys)
    body = orjson.dumps({"model": LENIENT, "rows": ask(1)})
    yield post(chance.choice([PREDICT, INFER, "/feedback"]), body, {name: value}).replace("ÿ".encode(), b"\xff")


def _no_key(_: Site, chance: random.Random) -> Iterable[bytes]:
    yield post(chance.choice([PREDICT, INFER, "/feedback", "/models/refresh"]), b"{}")


def _no_scope(site: Site, chance: random.Random) -> Iterable[bytes]:
    paths = ["/feedback", "/push", "/events/none", "/models/refresh", f"/v2/repository/models/{LENIENT}/unload"]
    yield site.predict(chance.choice([b"{}", b"\0"]), chance.choice(paths))


def _greedy(site: Site, _: random.Random) -> Iterable[bytes]:
    yield post(PREDICT, orjson.dumps({"model": LENIENT, "rows": ask(1)}), site.greedy) * 50


def _plain_to_tls(site: Site, _: random.Random) -> Iterable[bytes]:
    yield site.good()


_FRAMES = frozenset({400, 405, 413, 431, 501, 505})  # docs/security.md, Limits of requests
KINDS: Mapping[str, RubbishKind] = {
    "broken HTTP": RubbishKind(_broken_http, _FRAMES | {100, 200, 401, 403, 404}, is_incomplete=True),
    "garbage": RubbishKind(_garbage, frozenset({400, 431}), is_incomplete=True),
    "another protocol": RubbishKind(_other_protocol, frozenset({400, 505}), is_incomplete=True),
    "wrong framing": RubbishKind(_framing, _FRAMES),
    "wrong chunks": RubbishKind(_chunks, frozenset({400})),
    "a pipeline that ends in garbage": RubbishKind(_pipeline, frozenset({200, 400})),
    "more than said": RubbishKind(_longer_than_said, frozenset({400})),
    "upgrade": RubbishKind(_upgrade, frozenset({200, 400, 405})),
    "huge body": RubbishKind(_huge, frozenset({413})),
    "long head": RubbishKind(_long_head, frozenset({431})),
    "JSON bomb": RubbishKind(_json_bomb, frozenset({400})),
    "gzip bomb": RubbishKind(_gzip_bomb, frozenset({400, 413})),
    "wrong JSON": RubbishKind(_wrong_json, frozenset({400})),
    "wrong types": RubbishKind(_wrong_types, frozenset({400})),
    "wrong tensors": RubbishKind(_wrong_tensors, frozenset({400})),
    "unknown entity": RubbishKind(_unknown_entity, frozenset({200, 400})),
    "unknown name": RubbishKind(_unknown_name, frozenset({400, 403, 404, 405})),
    "wrong key": RubbishKind(_wrong_key, frozenset({400, 401})),
    "no key": RubbishKind(_no_key, frozenset({401}), target=lambda site: site.unknown),
    "no scope": RubbishKind(_no_scope, frozenset({403})),
    "beyond its rate": RubbishKind(_greedy, frozenset({200, 429})),
    "no TLS": RubbishKind(_plain_to_tls, frozenset(), target=lambda site: Target(site.target.address)),
}
