"""Token buckets in Redis, which all servers of a project share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skewless.contract.errors import DefinitionError

_SCRIPT = Path(__file__).with_name("take_tokens.lua").read_text()
_TIMEOUT_S = 0.5
_MICROSECONDS = 1_000_000
_SCHEMES = {"redis", "rediss", "unix"}


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A worker's demand for requests of one caller.

    Args:
        name: of the caller, unique in the project.
        rate: requests a second.
        size: requests that a full bucket has.
        served: requests that were served on credit since the last demand; they always count.
        wanted: requests to grant in addition.
    """

    name: str
    rate: float
    size: float
    served: int
    wanted: int


@dataclass(frozen=True, kw_only=True)
class Grant:
    """The answer to a demand.

    Args:
        requests: granted of those wanted.
        wait_s: seconds until the bucket has another one; 0: it has one now.
    """

    requests: int
    wait_s: float


class SharedRates:
    """The token buckets of a project.

    Args:
        url: setting ``redis_url``.
        project: its name.

    Raises:
        DefinitionError: the URL is not that of a Redis or Valkey.
    """

    def __init__(self, url: str, project: str) -> None:
        if url.partition("://")[0].partition("+")[0] not in _SCHEMES:
            fix = "use rate_limit: worker with this online store"
            raise DefinitionError("setting 'rate_limit'", "requires an online store in Redis or Valkey", fix=fix)
        self._url = url
        self._project = project
        self._client: Any = None

    def take(self, demands: Sequence[Demand]) -> list[Grant]:
        """Return a grant for each demand, from one round trip to each server.

        Raises:
            StoreError: Redis is unavailable. Some demands may have been counted.
        """
        from skewless.infra.reads.online.clients import RedisAddress, open_client, translate_errors  # noqa: PLC0415 - redis-py

        with translate_errors(self._url):
            # The client of a cluster connects at once, so it is opened only here, where a failure is expected.
            if self._client is None:
                self._client = open_client(RedisAddress.parse(self._url), _TIMEOUT_S)
            # The text of the script, not its digest: Redis compiles it once, and may be restarted at any time.
            pipeline = self._client.pipeline(transaction=False)
            for demand in demands:
                pipeline.execute_command("EVAL", _SCRIPT, 1, *self._arguments(demand))
            replies = pipeline.execute()
        return [Grant(requests=int(granted), wait_s=int(wait) / _MICROSECONDS) for granted, wait in replies]

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            from skewless.infra.reads.online.clients import close_client  # noqa: PLC0415 - as above

            close_client(self._client)

    def _arguments(self, demand: Demand) -> tuple[object, ...]:
        key = f"sk:{self._project}:rate/{demand.name}"
        return key, _MICROSECONDS / demand.rate, demand.size, demand.served, demand.wanted
