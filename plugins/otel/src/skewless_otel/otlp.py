"""Sends protobuf messages to an OpenTelemetry collector over OTLP/HTTP, from a thread that may wait.

OpenTelemetry's SDK is not used: it takes 95 us for the spans of one request, the message classes alone take 10 us.
"""

from __future__ import annotations

import gzip
import random
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import urllib3

from skewless.contract.errors import DefinitionError
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.version import __version__
from skewless_otel.settings import OtlpTarget

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

_TRY_AGAIN = {429, 502, 503, 504}  # as the protocol says
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0
_KINDS: Mapping[type, str] = {bool: "bool_value", int: "int_value", float: "double_value"}
_MOST_PAIRS = 4_096
_MOST_CHARS = 200  # of a problem in the log
_log = EventLogger()


class OtlpSender:
    """Sends one signal to a collector. Its first failure is logged, and its recovery.

    Args:
        name: of the signal, for the log.

    Raises:
        DefinitionError: the package for the messages is not installed.
    """

    def __init__(self, name: str, target: OtlpTarget) -> None:
        check_installed()
        self._name = name
        self._target = target
        self._stop = threading.Event()
        self._problem: str | None = None
        self._headers = {"content-type": "application/x-protobuf", "user-agent": f"skewless/{__version__}"}
        self._headers |= target.headers
        if target.is_compressed:
            self._headers["content-encoding"] = "gzip"
        self._pool = urllib3.PoolManager(
            retries=False,
            ca_certs=target.certificate,
            cert_file=target.client_certificate,
            key_file=target.client_key,
        )

    def send(self, body: bytes, timeout_s: float | None = None) -> bool:
        """Send a message, with pauses and again if that may help; return whether the collector has it.

        Args:
            timeout_s: for all attempts; None: as the target says.
        """
        limit_s = self._target.timeout_s if timeout_s is None else min(timeout_s, self._target.timeout_s)
        deadline, pause_s = time.monotonic() + limit_s, _FIRST_PAUSE_S
        data = gzip.compress(body, 1) if self._target.is_compressed else body
        while True:
            problem, may_retry = self._post(data, max(deadline - time.monotonic(), 0.001))
            # Chance keeps many servers from returning to a restarted collector together.
            wait_s = pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
            if not may_retry or time.monotonic() + wait_s > deadline or self._stop.wait(wait_s):
                break
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._report(problem)
        return problem is None

    def stop(self) -> None:
        """End the pauses between attempts, in this and in later messages."""
        self._stop.set()

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _post(self, data: bytes, timeout_s: float) -> tuple[str | None, bool]:
        """Return the problem, and whether another attempt may help."""
        try:
            reply = self._pool.request(
                "POST",
                self._target.url,
                body=data,
                headers=self._headers,
                timeout=urllib3.Timeout(total=timeout_s),
                redirect=False,  # it could take a credential to another host
            )
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            return " ".join(str(error).split()), not isinstance(error, ValueError)
        ok = 200 <= reply.status < 300  # noqa: PLR2004 - HTTP's
        return (None, False) if ok else (f"HTTP status {reply.status}", reply.status in _TRY_AGAIN)

    def _report(self, problem: str | None) -> None:
        if problem is not None and self._problem is None:
            _log.warning("otlp_not_sent", signal=self._name, url=self._target.url, reason=problem[:_MOST_CHARS])
        elif problem is None and self._problem is not None:
            _log.info("otlp_sent_again", signal=self._name)
        self._problem = problem


def check_installed() -> None:
    """Check that the message classes can be imported.

    Raises:
        DefinitionError: they cannot.
    """
    try:
        import opentelemetry.proto.trace.v1.trace_pb2  # noqa: F401, PLC0415 - only if a variable switches it on
    except ImportError as error:
        raise DefinitionError(
            "OpenTelemetry",
            "is switched on by the environment, but its messages are not installed",
            fix="pip install 'skewless[otel]', or set OTEL_SDK_DISABLED=true",
        ) from error


def encode_attributes(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Return attributes as messages; a value is a bool, an int, a float or a text."""
    return [_encode_pair(key, value, _KINDS.get(type(value), "string_value")) for key, value in attributes.items()]


@lru_cache(maxsize=_MOST_PAIRS)  # the same few values come again and again
def _encode_pair(key: str, value: Any, kind: str) -> KeyValue:  # noqa: ANN401 - a value of that kind
    # The kind is an argument because 1, 1.0 and True are equal.
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue  # noqa: PLC0415 - see check_installed

    return KeyValue(key=key, value=AnyValue(**{kind: value}))


def encode_resource(attributes: Mapping[str, str]) -> Resource:
    """Return the resource of this process as a message."""
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource  # noqa: PLC0415 - see check_installed

    return Resource(attributes=encode_attributes(attributes))


def encode_scope() -> InstrumentationScope:
    """Return the name and version of this program as a message."""
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope  # noqa: PLC0415 - see check_installed

    return InstrumentationScope(name="skewless", version=__version__)
