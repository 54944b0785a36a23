"""A small synchronous client of the prediction API; standard library only."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from skewless.errors import RequestError, StoreError


class Client:
    """Talks to one server over one kept-alive connection; not for several threads.

    Args:
        url: for example ``http://127.0.0.1:8080``.
        timeout: longest wait for an answer, seconds.
    """

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        self._url = url
        self._connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)

    def predict(self, rows: Sequence[dict[str, Any]], *, model: str | None = None, features: bool = False) -> Any:  # noqa: ANN401 - JSON
        """Return the reply to one prediction request of one or many rows.

        Raises:
            RequestError: the server refuses the request; the message is the server's.
            StoreError: the server cannot answer now.
        """
        body: dict[str, Any] = {"rows": list(rows), "features": features}
        if model is not None:
            body["model"] = model
        return self._call("POST", "/predict", json.dumps(body))

    def send_events(self, source: str, events: Sequence[dict[str, Any]]) -> int:
        """Put events into the stream of an event source; return how many, once the stream has them.

        They are judged afterwards, by the worker: one that does not fit goes to quarantine.

        Raises:
            RequestError: the server refuses the request, for example because it does not know the source.
            StoreError: the stream is away, or the server; some events may have been taken.
        """
        path = f"/events/{quote(source, safe='')}"
        return int(self._call("POST", path, json.dumps({"events": list(events)}))["accepted_for"])

    def models(self) -> Any:  # noqa: ANN401 - JSON
        """Return the models that are served, and why newer versions are not."""
        return self._call("GET", "/models")

    def ready(self) -> Any:  # noqa: ANN401 - JSON
        """Return whether predictions are answered, or why not."""
        return self._call("GET", "/health/ready")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _call(self, method: str, path: str, body: str | None = None) -> Any:  # noqa: ANN401 - JSON
        try:
            status, data = self._exchange(method, path, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            raise StoreError(
                f"server at {self._url}", f"did not answer: {error}", fix="start `skewless serve`"
            ) from error
        if status >= http.HTTPStatus.BAD_REQUEST and "error" in data:
            problem = data["error"]
            kind = RequestError if status < http.HTTPStatus.INTERNAL_SERVER_ERROR else StoreError
            raise kind(problem["thing"], problem["problem"], value=problem.get("value"), fix=problem["fix"])
        return data

    def _exchange(self, method: str, path: str, body: str | None) -> tuple[int, Any]:
        try:
            return self._once(method, path, body)
        except (ConnectionResetError, BrokenPipeError):
            # The server closes an idle connection; only a new one tells whether it is there.
            self._connection.close()
            return self._once(method, path, body)

    def _once(self, method: str, path: str, body: str | None) -> tuple[int, Any]:
        self._connection.request(method, path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())
