"""Deletes keys of a server, in batches."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_SCAN_COUNT = 1_000


def delete_keys(client: Any, prefix: str) -> int:  # noqa: ANN401 - redis-py's clients are untyped
    """Delete every key of one server with a prefix; return how many there were. It can be repeated after a failure."""
    pattern = re.sub(r"([\\*?\[\]])", r"\\\1", prefix) + "*"
    cursor, deleted = 0, 0
    while True:
        cursor, keys = client.scan(cursor, match=pattern, count=_SCAN_COUNT)
        deleted += remove_keys(client, keys)
        if not cursor:
            return deleted


def remove_keys(client: Any, keys: Iterable[bytes]) -> int:  # noqa: ANN401 - as above
    """Delete keys; return how many there were."""
    # One command per key: in a cluster, the keys of one server lie in many slots.
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.unlink(key)
    return int(sum(pipeline.execute()))
