"""Sends JSON to a webhook's URL, with a few retries; a failure is logged, not raised."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from skewless.contract.errors import DefinitionError
from skewless.infra.telemetry.logger import EventLogger

TOKEN_VARIABLE = "SKEWLESS_ALERT_TOKEN"  # noqa: S105 - its name, not a token
_TIMEOUT_SECONDS = 5.0
_WAITS = (0.5, 2.0, 8.0)
_ACCEPTED = range(200, 300)
_log = EventLogger()


class Webhook:
    """The receiver of notices. Redirects are not followed, because they could send the token to another host.

    Args:
        url: ``http://`` or ``https://``; it may contain a secret and is never logged.
        waits: seconds before each retry.
        sleep: waits that many seconds.

    Raises:
        DefinitionError: the URL is neither http nor https.
    """

    def __init__(
        self, url: str, *, waits: tuple[float, ...] = _WAITS, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._url = urlsplit(url)
        if self._url.scheme not in {"http", "https"} or not self._url.hostname:
            raise DefinitionError("setting 'alert_webhook'", "is not an http or https URL", fix="correct it")
        self._waits = waits
        self._sleep = sleep

    def post(self, body: Mapping[str, Any]) -> bool:
        """Send a body as JSON; return whether the receiver accepted it (status 200 to 299)."""
        data = json.dumps(body).encode()
        problem = self._attempt(data)
        for seconds in self._waits:
            if problem is None:
                return True
            self._sleep(seconds)
            problem = self._attempt(data)
        if problem is not None:
            _log.warning("webhook_failed", host=self._url.hostname, attempts=len(self._waits) + 1, problem=problem)
        return problem is None

    def _attempt(self, data: bytes) -> str | None:
        """Send once; return the problem, None if there was none."""
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.hostname or "", self._url.port, timeout=_TIMEOUT_SECONDS)
        path = (self._url.path or "/") + (f"?{self._url.query}" if self._url.query else "")
        try:
            connection.request("POST", path, data, _headers())
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()
        return None if status in _ACCEPTED else f"status {status}"


def _headers() -> dict[str, str]:
    token = os.environ.get(TOKEN_VARIABLE)
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    return {"Content-Type": "application/json", "User-Agent": "skewless", **authorization}
