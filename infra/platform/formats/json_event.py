"""Reads an event in JSON."""

from __future__ import annotations

import json
from typing import Any

import orjson

from skewless.infra.platform.formats.codec import PayloadError


def load_event(payload: bytes) -> dict[str, Any]:
    """Return the fields of an event.

    Raises:
        PayloadError: the message is not a JSON object.

    >>> load_event(b'{"card": 7, "amount": NaN}')
    {'card': 7, 'amount': nan}
    """
    event = _load_json(payload)
    if not isinstance(event, dict):
        raise PayloadError("the message is not a JSON object")
    return event


def _load_json(payload: bytes) -> object:
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(payload)  # Python's own writer emits NaN, which is not JSON
    except (ValueError, RecursionError):
        return None
