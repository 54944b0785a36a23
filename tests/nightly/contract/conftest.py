"""The fixtures of the daily tests of this folder; some are asked for by name."""

from __future__ import annotations

from tests.contract.conftest import (
    _registered,
    cluster_emptied,
    online_place,
    redis_8,
    redis_emptied,
    valkey_emptied,
    watched,
)

__all__ = [
    "_registered",
    "cluster_emptied",
    "online_place",
    "redis_8",
    "redis_emptied",
    "valkey_emptied",
    "watched",
]
