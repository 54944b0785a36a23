"""Delivers decisions as HTTP requests, signed as Standard Webhooks says (https://www.standardwebhooks.com).

A status from 200 to 299 confirms a decision. 400, 409, 413, 415 and 422 refuse it for good. Any other status, a reply
that is late, and a lost connection are an outage: the decision is sent again, and later ones of its key wait.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import io
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from zlib import crc32

from skewless.contract.destinations import SinkHosts
from skewless.contract.errors import DefinitionError, StoreError
from skewless.contract.sinks import WebhookSink, read_secret
from skewless_decisions.decision import LoggedDecision, MessageWriter
from skewless_decisions.outbox import DecisionBatch
from skewless_decisions.sink_positions import Refusal

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult

_ACCEPTED = range(200, 300)
_SERVER_ERRORS = range(500, 600)
_REFUSED = frozenset({400, 409, 413, 415, 422})
_MOST_REPLY_BYTES = 65_536
_LONGEST_WAIT_S = 300.0
_LARGE_BYTES = 1_000_000
_LEAST_SECRET_BYTES = 16
_SECRET_PREFIX = "whsec_"  # noqa: S105 - no secret


class WebhookDelivery:
    """Implements ``DecisionSink`` for a receiver of HTTP requests. Redirects are not followed.

    Args:
        sink: its declaration.
        writer: of the requests' bodies.
        environment: variables with the secrets.
        now_s: the clock, seconds since the epoch; a receiver compares the signed time with its own.
        hosts: that may be reached, also by addresses that the host of the URL resolves to.

    Raises:
        DefinitionError: a secret is missing or is not valid.
    """

    def __init__(
        self,
        sink: WebhookSink,
        writer: MessageWriter,
        environment: Mapping[str, str],
        now_s: Callable[[], float] = time.time,
        hosts: SinkHosts = SinkHosts(),  # noqa: B008 - frozen
    ) -> None:
        self._sink, self._writer, self._now_s, self._hosts = sink, writer, now_s, hosts
        self._secrets = _read_secrets(sink, environment)
        self._headers = {"Content-Type": writer.content_type, "User-Agent": "skewless", "Accept-Encoding": "identity"}
        if sink.token_env is not None:
            self._headers["Authorization"] = f"Bearer {read_secret(sink, sink.token_env, environment)}"
        self._runner = asyncio.Runner()
        self._session: Any = None
        # Of the present batch: the decisions with an answer, and the attempts that failed.
        self._done: dict[str, Refusal | None] = {}
        self._attempts: dict[str, int] = {}
        self.retry_after_s: float | None = None

    def send(self, batch: DecisionBatch) -> Sequence[Refusal]:
        """Deliver a batch; see ``DecisionSink``."""
        self.retry_after_s = None
        present = {decision.id for decision in batch.decisions}
        for known in (self._done, self._attempts):
            for name in known.keys() - present:
                del known[name]  # of an earlier batch that was given up
        self._runner.run(self._send(batch))
        refusals = [refusal for refusal in self._done.values() if refusal is not None]
        self._done.clear()
        self._attempts.clear()
        return sorted(refusals, key=lambda refusal: refusal.position)

    def close(self) -> None:
        """Close the connections; see ``DecisionSink``."""
        if self._session is not None:
            self._runner.run(self._session.close())
        self._runner.close()

    async def _send(self, batch: DecisionBatch) -> None:
        if self._session is None:
            self._session = self._open_session()
        lanes: dict[int, list[tuple[int, LoggedDecision]]] = {}
        for position, decision in zip(batch.positions, batch.decisions, strict=True):
            if decision.id not in self._done:
                lane = crc32(decision.key(self._sink.key).encode()) % self._sink.connections
                lanes.setdefault(lane, []).append((position, decision))
        results = await asyncio.gather(*map(self._send_lane, lanes.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def _send_lane(self, lane: Sequence[tuple[int, LoggedDecision]]) -> None:
        for position, decision in lane:
            reason = await self._post(decision)
            refusal = None if reason is None else Refusal(id=decision.id, position=position, reason=reason)
            self._done[decision.id] = refusal

    async def _post(self, decision: LoggedDecision) -> str | None:
        """Send one request; return why the decision is refused for good, None if it is accepted."""
        import aiohttp  # noqa: PLC0415 - only with a webhook

        body = self._writer.write(decision)
        data = body if len(body) < _LARGE_BYTES else io.BytesIO(body)  # aiohttp sends a large one in parts
        try:
            async with (
                asyncio.timeout(self._sink.timeout_s),
                self._session.post(
                    self._sink.url, data=data, headers=self._sign(decision.id, body), allow_redirects=False
                ) as reply,
            ):
                status, wait = reply.status, reply.headers.get("Retry-After", "")
                if len(await reply.content.read(_MOST_REPLY_BYTES)) == _MOST_REPLY_BYTES:
                    reply.close()  # the rest is not read, so the connection cannot be used again
        except TimeoutError:
            raise self._error(f"did not answer in {self._sink.timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._error(f"cannot be reached: {type(error).__name__}") from None
        if status in _ACCEPTED:
            return None
        if status in _REFUSED or self._is_last(decision, status):
            return f"the receiver answered with status {status}"
        if wait.isascii() and wait.isdigit():
            self.retry_after_s = max(min(float(wait[:9]), _LONGEST_WAIT_S), self.retry_after_s or 0.0)
        raise self._error(f"answered with status {status}")

    def _is_last(self, decision: LoggedDecision, status: int) -> bool:
        if status not in _SERVER_ERRORS:
            return False
        self._attempts[decision.id] = self._attempts.get(decision.id, 0) + 1
        return self._sink.most_attempts is not None and self._attempts[decision.id] >= self._sink.most_attempts

    def _sign(self, name: str, body: bytes) -> dict[str, str]:
        at = str(int(self._now_s()))
        signed = b".".join([name.encode(), at.encode(), body])
        signatures = [base64.b64encode(hmac.digest(secret, signed, "sha256")).decode() for secret in self._secrets]
        return {
            "Idempotency-Key": name,
            "webhook-id": name,
            "webhook-timestamp": at,
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }

    def _open_session(self) -> Any:  # noqa: ANN401 - aiohttp is imported late
        import aiohttp  # noqa: PLC0415 - as above

        tls = ssl.create_default_context() if self._sink.url.startswith("https") else False
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls, limit=self._sink.connections, resolver=self._open_resolver()),
            headers=self._headers,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def _open_resolver(self) -> Any:  # noqa: ANN401 - as above
        """Return a resolver of names that omits addresses that may not be reached.

        The connection goes to an address that was checked: a second look-up could return another one.
        """
        import aiohttp  # noqa: PLC0415 - as above

        permits, error = self._hosts.permits_address, self._error

        class PermittedResolver(aiohttp.ThreadedResolver):
            async def resolve(
                self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
            ) -> list[ResolveResult]:
                found = await super().resolve(host, port, family)
                permitted = [each for each in found if permits(host, each["host"])]
                if not permitted:
                    raise error("resolves to an address that is not allowed, see 'sink_hosts'")
                return permitted

        return PermittedResolver()

    def _error(self, problem: str) -> StoreError:
        host = urlsplit(self._sink.url).hostname
        return StoreError(
            f"webhook {self._sink.name!r} at {host}", problem, fix="repair the receiver; no decision is lost"
        )


def _read_secrets(sink: WebhookSink, environment: Mapping[str, str]) -> list[bytes]:
    """Return the keys of the signatures; the variable may have several, for the time of a rotation."""
    texts = read_secret(sink, sink.secret_env, environment).split()
    try:
        secrets = [base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True) for text in texts]
    except (binascii.Error, ValueError):
        secrets = []
    if not secrets or min(map(len, secrets)) < _LEAST_SECRET_BYTES:
        raise DefinitionError(
            f"environment variable {sink.secret_env!r} of sink {sink.name!r}",
            f"is not the base64 text of at least {_LEAST_SECRET_BYTES} bytes",
            fix="create it with `openssl rand -base64 32`",
        )
    return secrets
