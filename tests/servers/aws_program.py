"""Runs moto's server in the environment of the clients: requests one after another, some of them answered with faults.

AWS changes an item or a shard in one step. moto does not between threads, so one thread answers all requests. A fault
is posted as JSON to ``/faults``: ``{"action": "PutItem", "code": "ThrottlingException", "skip": 0, "n": 3}``.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

from tests.servers.aws_kinesis import mend_kinesis, trim


class FaultyApplication:
    """Answers some requests itself, and leaves a part of batches undone, as AWS does under load."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._faults: list[dict[str, Any]] = []
        self._counts: dict[str, int] = {}

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size)
        if environ["PATH_INFO"] == "/faults":
            self._faults = json.loads(body)
            counts, self._counts = self._counts, {}
            return _reply(start_response, "200 OK", counts)
        if environ["PATH_INFO"] == "/trim":
            trim(json.loads(body))
            return _reply(start_response, "200 OK", {})
        environ["wsgi.input"] = BytesIO(body)
        action = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        self._counts[action] = self._counts.get(action, 0) + 1
        fault = self._next_fault(action)
        if fault is None:
            answer: Iterable[bytes] = self._moto(environ, start_response)
            return answer
        if fault["code"] == "lost reply":
            list(self._moto(environ, lambda *_: None))
            return _reply(start_response, "500 Internal Server Error", {"__type": "InternalServerError"})
        if fault["code"] == "partly":
            return self._answer_partly(json.loads(body), environ, start_response)
        return _reply(start_response, "400 Bad Request", {"__type": fault["code"], "message": "a fault of the tests"})

    def _next_fault(self, action: str) -> dict[str, Any] | None:
        for fault in self._faults:
            if fault["action"] == action and fault["n"] > 0:
                if fault.get("skip", 0) > 0:
                    fault["skip"] -= 1
                    return None
                fault["n"] -= 1
                return fault
        return None

    def _answer_partly(
        self, asked: dict[str, Any], environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Let moto answer one key of a BatchGetItem or one record of a PutRecords, and leave the others."""
        rest: dict[str, Any] = {}
        if "RequestItems" in asked:
            ((table, wanted),) = asked["RequestItems"].items()
            rest = {table: wanted | {"Keys": wanted["Keys"][1:]}} if wanted["Keys"][1:] else {}
            wanted["Keys"] = wanted["Keys"][:1]
        else:
            refused = len(asked["Records"]) - 1
            asked["Records"] = asked["Records"][:1]
        body = json.dumps(asked).encode()
        environ |= {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        answer = json.loads(b"".join(self._moto(environ, lambda *_: None)))
        if "Records" in answer:
            failed = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "a fault of the tests"}
            answer |= {"FailedRecordCount": refused, "Records": answer["Records"] + [failed] * refused}
        else:
            answer["UnprocessedKeys"] = rest
        return _reply(start_response, "200 OK", answer)


def _reply(start_response: Callable[..., Any], status: str, body: object) -> list[bytes]:
    text = json.dumps(body).encode()
    start_response(status, [("Content-Type", "application/x-amz-json-1.0"), ("Content-Length", str(len(text)))])
    return [text]


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    mend_kinesis()
    run_simple("127.0.0.1", int(sys.argv[1]), FaultyApplication(), threaded=False, request_handler=MotoRequestHandler)
