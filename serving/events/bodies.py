"""The bodies that bring events: one object, a list of them, lines of them, or Feast's columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from skewless.contract.errors import RequestError

_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_ONE = 'send one JSON object, {"events": [{...}]}, or lines of objects as application/x-ndjson'
_PUSH = 'send {"push_source_name": "...", "df": {"column": [...]}, "to": "online"}'
_MODES = ("online", "offline", "online_and_offline")
_FIELDS = frozenset({"push_source_name", "df", "to", "allow_registry_cache", "transform_on_write"})


class TooLongError(RequestError):
    """A body is longer than is read."""


def parse_events(body: bytes, content_type: str) -> list[bytes]:
    """Return the messages of a request; an object is sent as it came, to the byte.

    >>> parse_events(b'{"id": 1.50}', "")
    [b'{"id": 1.50}']
    >>> parse_events(b'{"events": [{"id": 1}, {"id": 2}]}', "application/json")
    [b'{"id":1}', b'{"id":2}']

    Raises:
        RequestError: it holds something else than objects, or none.
    """
    if content_type.partition(";")[0].strip().lower() in _LINES:
        return _lines(body)
    found = _object(body, "request body", _ONE)
    if found.keys() != {"events"} or not isinstance(found["events"], list):
        return [body]
    for i, event in enumerate(found["events"]):
        if not isinstance(event, dict):
            raise RequestError(f"event {i}", "is not a JSON object", value=event, fix=_ONE)
    return _some(_messages(found["events"]))


def parse_push(body: bytes) -> tuple[str, list[bytes]]:
    """Return the source and the messages of a request as Feast's feature server takes it.

    >>> parse_push(b'{"push_source_name": "s", "df": {"a": [1, 2], "b": ["x", null]}}')
    ('s', [b'{"a":1,"b":"x"}', b'{"a":2,"b":null}'])

    Raises:
        RequestError: it is not of that shape.
    """
    found = _object(body, "request body", _PUSH)
    unknown = found.keys() - _FIELDS
    if unknown:
        raise RequestError("request body", "has an unknown field", value=min(unknown), fix=_PUSH)
    name, columns = found.get("push_source_name"), found.get("df")
    if not isinstance(name, str):
        raise RequestError("request field 'push_source_name'", "is not a text", value=name, fix=_PUSH)
    if found.get("to", "online") not in _MODES:
        raise RequestError(
            "request field 'to'",
            "is unknown",
            value=found["to"],
            fix=f"use one of {', '.join(_MODES)}: all mean the same",
        )
    return name, _some(_messages(_rows(columns)))


def _messages(events: Sequence[Mapping[str, Any]]) -> list[bytes]:
    try:
        return [orjson.dumps(event) for event in events]
    except TypeError as error:
        raise RequestError("request body", f"is nested too deep: {error}", fix="send flat events") from error


def _rows(columns: object) -> list[dict[str, Any]]:
    if not isinstance(columns, dict) or not all(isinstance(values, list) for values in columns.values()):
        raise RequestError("request field 'df'", "is not an object of columns", fix=_PUSH)
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise RequestError(
            "request field 'df'", "has columns of several lengths", value=lengths, fix="send full columns"
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _lines(body: bytes) -> list[bytes]:
    lines = body.split(b"\n")
    for i, line in enumerate(lines, 1):
        if line.strip():
            _object(line, f"line {i}", "send one JSON object a line")
    return _some([line.strip() for line in lines if line.strip()])


def _object(text: bytes, thing: str, fix: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RequestError(thing, f"is not JSON: {error}", fix=fix) from error
    if not isinstance(found, dict):
        raise RequestError(thing, "is not a JSON object", fix=fix)
    return found


def _some(payloads: Sequence[bytes]) -> list[bytes]:
    if not payloads:
        raise RequestError("request body", "holds no event", fix=_ONE)
    return list(payloads)
