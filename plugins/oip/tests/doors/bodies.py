"""Bodies for every POST route: valid ones, with mutations that no parser may fail on."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from tests.integration.serving.core.conftest import SECOND
from tests.integration.serving.core.doors import SOURCE
from tests.worlds.trained import MODEL, NOW, ask

_JSON, _LINES = "application/json", "application/x-ndjson"
_KINDS = {"card_id": "INT64", "shop_id": "BYTES", "amount": "FP64", "paid_at": "INT64"}
_KEYS = {"card_id": 7, "shop_id": "shop-07"}
_MOST_CHANGES = 3


@dataclass(frozen=True)
class Raw:
    """JSON, or what is none, as it stands."""

    text: str


@dataclass(frozen=True, kw_only=True)
class SentBody:
    """One request."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def _tensors(**parts: Any) -> Any:  # noqa: ANN401 - JSON
    rows = ask(2)
    inputs = [
        {"name": name, "datatype": kind, "shape": [2], "data": [row[name] for row in rows]}
        for name, kind in _KINDS.items()
    ]
    return {"id": "mine", "inputs": inputs, **parts}


_PREDICT: Sequence[Any] = [
    {"model": MODEL, "rows": ask(1)},
    {"model": SECOND, "rows": ask(2), "features": True, "max_feature_age_s": 1e9},
    {"model": MODEL, "version": "1", "rows": ask(2), "contributions": True, "as_of": NOW, "timeout_us": 9_000_000},
]
_INFER: Sequence[Any] = [
    _tensors(),
    _tensors(parameters={"as_of": NOW, "timeout": 0, "binary_data_output": True}, outputs=[{"name": "score"}]),
    {"inputs": [{"name": "features", "datatype": "FP64", "shape": [1, 6], "data": [[0.5] * 6]}]},
]
# Not JSON, but sent: then another parser reads them.
_LENIENT: Sequence[Any] = [
    {"id": "mine", "inputs": [{"name": "features", "datatype": "FP64", "shape": [1, 6], "data": [Raw("NaN")] * 6}]},
    _tensors(parameters={"odd": Raw("-Infinity"), "as_of": NOW}, outputs=[{"name": "score"}]),
]
_FEEDBACK: Sequence[Any] = [
    {"feedback": [{"prediction_id": "a", "label": 1, "value": 2.5, "known_at": NOW}]},
    {"feedback": [{"model": MODEL, "keys": _KEYS, "event_time": "2026-01-10T12:00:00Z", "label": None}]},
]
_EVENTS: Sequence[Any] = [{"id": "a", "n": 1.5}, {"events": [{"id": "a"}, {"id": "b", "at": NOW}]}]
_PUSH: Sequence[Any] = [{"push_source_name": SOURCE, "df": {"id": ["a", "b"], "n": [1, None]}, "to": "online"}]
_LOAD: Sequence[Any] = [{}, {"parameters": {"version": "1"}}]
_INDEX: Sequence[Any] = [{}, {"ready": True}]

ROUTES: Mapping[str, Sequence[Any]] = {
    "/predict": _PREDICT,
    f"/v2/models/{MODEL}/infer": [*_INFER, *_LENIENT],
    f"/v2/models/{MODEL}/versions/1/infer": _INFER[1:2],
    "/feedback": _FEEDBACK,
    f"/events/{SOURCE}": _EVENTS,
    "/push": _PUSH,
    "/v2/repository/index": _INDEX,
    f"/v2/repository/models/{MODEL}/load": _LOAD,
    "/models/refresh": [{}],
    f"/models/{MODEL}/rollback": [{}],
}
# With a name that is none in it; `unload` takes no other here, so that the models stay.
_NAMED = (
    "/v2/models/{}/infer",
    f"/v2/models/{MODEL}/versions/{{}}/infer",
    "/events/{}",
    "/v2/repository/models/{}/load",
    "/v2/repository/models/{}/unload",
    "/models/{}/rollback",
    "/feedback/{}",
    "/{}",
)


def _deep(depth: int) -> list[Raw]:
    pairs = [("[" * depth, "]" * depth), ('{"a":' * depth, "}" * depth)]
    return [Raw(f"{start}{middle}{end}") for start, end in pairs for middle in ("", "1")]


# What parsers and writers of JSON, numbers, texts and times have failed on.
ODD: Sequence[Any] = [
    *(each for depth in (20, 250, 990, 1_100, 20_000) for each in _deep(depth)),
    *(Raw(digits) for digits in ("9" * 400, "-" + "9" * 400, "9" * 5_000, "1e400", "-1e400", "0." + "1" * 5_000)),
    *(Raw(text) for text in ("NaN", "-Infinity", r'"\ud800"', r'"a\udfff b"', r'"\ud83d\ude00"', r'"\u0000"', "01")),
    *(2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, -0.0, 5e-324, 1e308, 0, -1, 1.0),
    *(None, True, False, "", "x", "x" * 50_000, "é" * 10_000, "1", "١٢", "9" * 5_000, "{}", "\x00\n\r\t", "%s{0}"),
    *([], {}, [[]], [{}], [None] * 3, {"": 1}, {"x" * 50_000: 1}, [1] * 20_000, {str(i): i for i in range(5_000)}),
    *("9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+23:59", "2026-01-01", "24:00", "9" * 30),
]
# Of each kind that once led to a 500, or to a reply as long as the request.
WORST: Sequence[Any] = [
    *_deep(260),
    *_deep(990),
    Raw(r'"\ud800"'),
    Raw("9" * 400),
    2**64,
    "x" * 50_000,
    {"x" * 50_000: 1},
    [1] * 20_000,
]
_NAMES: Sequence[Any] = ["x", "", "id", "rows", "__class__", "x" * 50_000, Raw(r'"\ud800"'), "\x00"]
_PATHS = ["x", "x" * 4_000, "\ud800", "é" * 300, "..", "%2e%2e", "a b", "\x00", "\n", "'\"", "9" * 500, "{}", "a/b"]


def replaced(value: Any, odd: Any) -> Iterator[Any]:  # noqa: ANN401 - JSON
    """Yield a value with something odd in each place of it in turn."""
    yield odd
    if isinstance(value, dict):
        for name, item in value.items():
            yield from ({**value, name: other} for other in replaced(item, odd))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from ([*value[:i], other, *value[i + 1 :]] for other in replaced(item, odd))


def text_of(value: Any) -> str:  # noqa: ANN401 - JSON with raw parts
    """Return a value as JSON; an object may come as a list of pairs in ``Pairs``."""
    match value:
        case Raw(text):
            return text
        case Pairs(pairs):
            return "{" + ",".join(f"{text_of(name)}:{text_of(item)}" for name, item in pairs) + "}"
        case dict():
            return text_of(Pairs(tuple(value.items())))
        case list():
            return "[" + ",".join(map(text_of, value)) + "]"
        case _:
            return json.dumps(value)


@dataclass(frozen=True)
class Pairs:
    """An object whose names need not differ."""

    pairs: tuple[tuple[Any, Any], ...]


def _values() -> st.SearchStrategy[Any]:
    leaves = st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=9)
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    )


_VALUES = _values()


def _changed(draw: st.DrawFn, value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a value with one change somewhere in it."""
    inside = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    if not inside or draw(st.integers(0, 3)) == 0:
        return draw(_VALUES)
    place = draw(st.integers(0, len(inside) - 1))
    name, item = inside[place]
    change = draw(st.sampled_from(["inside", "inside", "inside", "drop", "twice", "more", "wrap"]))
    if isinstance(value, list):
        return [*value[:place], *_instead(draw, change, item), *value[place + 1 :]]
    if change == "twice":
        return Pairs((*inside, (name, _changed(draw, item))))
    if change == "more":
        return Pairs((*inside, (draw(st.sampled_from(_NAMES)), draw(_VALUES))))
    return {
        each: (_changed(draw, old) if change == "inside" else [old]) if each == name else old
        for each, old in inside
        if change != "drop" or each != name
    }


def _instead(draw: st.DrawFn, change: str, item: Any) -> list[Any]:  # noqa: ANN401 - JSON
    """Return what comes in place of an item of a list."""
    match change:
        case "inside":
            return [_changed(draw, item)]
        case "twice":
            return [item, item]
        case "more":
            return [item, draw(_VALUES)]
        case "wrap":
            return [[item]]
    return []


def _broken(draw: st.DrawFn, body: bytes) -> bytes:
    """Return a body with a change that knows no JSON."""
    place = draw(st.integers(0, len(body)))
    piece = draw(
        st.sampled_from([b"", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\x00", b'"', b"]", b"}", b"\xef\xbb\xbf", b"\n"])
    )
    return body[:place] + piece + draw(st.sampled_from([body[place:], body[place + 1 :], b""]))


def _packed(draw: st.DrawFn, body: bytes) -> tuple[bytes, dict[str, str]]:
    """Return a body and what its header says of it, which need not be true."""
    way = draw(st.sampled_from(["gzip", "deflate", "br", "identity", "gzip, gzip", "", "é" * 9, "x" * 3_000]))
    packed = {"gzip": gzip.compress(body), "deflate": zlib.compress(body)}.get(way, body)
    return draw(st.sampled_from([packed, packed, body, packed[:-3], packed + b"x"])), {"Content-Encoding": way}


@st.composite
def requests(draw: st.DrawFn) -> SentBody:
    """Draw a request that a client may send by mistake or on purpose."""
    if draw(st.integers(0, 9)) == 0:
        name = draw(st.sampled_from(_PATHS) | st.text(min_size=1, max_size=20))
        quoted = quote(name, safe="", errors="surrogatepass")
        return SentBody(
            path=draw(st.sampled_from(_NAMED)).format(quoted), body=draw(st.sampled_from([b"", b"{}", b"["]))
        )
    path = draw(st.sampled_from(sorted(ROUTES)))
    value = draw(st.sampled_from(ROUTES[path]))
    for _ in range(draw(st.integers(0, _MOST_CHANGES))):
        value = value if isinstance(value, Raw | Pairs) else _changed(draw, value)
    body = text_of(value).encode(errors="surrogatepass")
    headers: dict[str, str] = {}
    kind = draw(st.sampled_from([_JSON, _JSON, _LINES, "", "text/plain", "multipart/form-data", "x/" + "y" * 3_000]))
    match draw(st.sampled_from(["plain", "plain", "plain", "broken", "packed", "length"])):
        case "broken":
            body = _broken(draw, body)
        case "packed":
            body, headers = _packed(draw, body)
        case "length":
            lengths = ["0", "2", str(len(body)), "9" * 30, "-1", "x", "²"]
            headers = {"Inference-Header-Content-Length": draw(st.sampled_from(lengths))}
    return SentBody(path=path, body=body, headers=headers | ({"Content-Type": kind} if kind else {}))
