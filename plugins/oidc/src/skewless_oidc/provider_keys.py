"""The signing keys of OpenID Connect providers, fetched by a thread and kept while a provider is unavailable."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key

from skewless.contract.loopback import is_loopback
from skewless.infra.platform.telemetry.logger import EventLogger

DISCOVERY = "/.well-known/openid-configuration"
_MAX_BYTES = 1_048_576  # of a document; real ones have some kilobytes
_MAX_KEYS = 100  # of an issuer
_FETCH_S = 10.0  # for discovery and keys together
_REFRESH_S = 300.0
_UNKNOWN_S = 10.0  # at least between two fetches, however many tokens name unknown keys
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0
_RSA_BITS = range(2_048, 8_193)  # larger keys would make each verification slow
_PUBLIC_TYPES = {"RSA", "EC", "OKP"}
_log = EventLogger()


class ProviderError(Exception):
    """The keys of a provider cannot be fetched; the text says why, and is safe to log."""


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """An OpenID Connect provider.

    Args:
        url: identifies it, exactly as in the claim ``iss``.
        keys_url: of its JSON Web Key Set; None: the document at ``/.well-known/openid-configuration`` names it.
    """

    url: str
    keys_url: str | None = None


def is_safe_url(url: str) -> bool:
    """Return whether a URL is https, or http on this machine, without user and password.

    >>> [is_safe_url(url) for url in ("https://id.shop.com", "http://localhost:8080/a", "http://id.shop.com")]
    [True, True, False]
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    if not parts.hostname or "@" in parts.netloc:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))


async def fetch_keys(issuer: Issuer) -> list[Key]:
    """Return the public signing keys of an issuer, bounded in time and size. Redirects are not followed.

    Raises:
        ProviderError: the provider is unavailable, or its reply is wrong.
    """
    # A new context for each fetch: the machine's certificates, or those of SSL_CERT_FILE, may have been renewed.
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
    plain = {"Accept-Encoding": "identity"}  # a compressed reply could be much longer than its bytes
    try:
        async with (
            aiohttp.ClientSession(connector=connector, auto_decompress=False, headers=plain) as session,
            asyncio.timeout(_FETCH_S),
        ):
            url = issuer.keys_url or await _discover(session, issuer)
            return parse_keys(await _fetch_json(session, url))
    except TimeoutError:
        raise ProviderError(f"did not answer in {_FETCH_S:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ProviderError(f"cannot be reached: {type(error).__name__}: {error}") from error


async def _discover(session: aiohttp.ClientSession, issuer: Issuer) -> str:
    document = await _fetch_json(session, discovery_url(issuer.url))
    if document.get("issuer") != issuer.url:
        raise ProviderError(f"names another issuer in its discovery document: {document.get('issuer')!r:.200}")
    url = document.get("jwks_uri")
    # A provider behind https must not send this server to a service on its own machine.
    if not isinstance(url, str) or not is_safe_url(url) or (url.startswith("http:") and issuer.url.startswith("https")):
        raise ProviderError(f"has no https address of its keys in its discovery document: {url!r:.200}")
    return url


def discovery_url(issuer: str) -> str:
    """Return the URL of an issuer's discovery document."""
    return issuer.rstrip("/") + DISCOVERY


async def _fetch_json(session: aiohttp.ClientSession, url: str) -> Mapping[str, Any]:
    return await read_json(session.get(url, allow_redirects=False), url)


async def read_json(request: AbstractAsyncContextManager[aiohttp.ClientResponse], url: str) -> Mapping[str, Any]:
    """Return the JSON object that a provider answers to a request of aiohttp, bounded in size.

    Raises:
        ProviderError: the reply is wrong.
    """
    async with request as reply:
        if reply.status != 200:  # noqa: PLR2004 - HTTP's OK
            raise ProviderError(f"answered with status {reply.status} at {url}; redirects are not followed")
        text = await _read(reply, url)
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ProviderError(f"did not answer with JSON at {url}: {error}") from error
    if not isinstance(document, dict):
        raise ProviderError(f"did not answer with a JSON object at {url}")
    return document


async def _read(reply: aiohttp.ClientResponse, url: str) -> bytes:
    parts, size = [], 0
    try:
        async for part in reply.content.iter_any():
            size += len(part)
            if size > _MAX_BYTES:
                raise ProviderError(f"answered with more than {_MAX_BYTES} bytes at {url}")
            parts.append(part)
        return b"".join(parts)
    finally:
        # Before the end of the reply: a close would wait for the provider, which may never be done.
        if (connection := reply.connection) is not None and connection.transport is not None:
            connection.transport.abort()


def parse_keys(document: Mapping[str, Any]) -> list[Key]:
    """Return the public signing keys of a JSON Web Key Set (RFC 7517); other keys, also malformed ones, are skipped.

    Symmetric keys are skipped: a public document cannot contain a secret.

    Raises:
        ProviderError: the set has no usable key, or too many keys.
    """
    items = document.get("keys")
    if not isinstance(items, list) or len(items) > _MAX_KEYS:
        raise ProviderError(f"has no list of at most {_MAX_KEYS} keys")
    keys = []
    for item in items:
        if not isinstance(item, dict) or item.get("kty") not in _PUBLIC_TYPES or item.get("use", "sig") != "sig":
            continue
        if "verify" not in item.get("key_ops", ["verify"]):
            continue
        try:
            if item["kty"] == "RSA" and _n_bits(item["n"]) not in _RSA_BITS:
                continue
            keys.append(JWKRegistry.import_key({name: item[name] for name in item.keys() & _PUBLIC_PARTS}))
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
            continue
    if not keys:
        raise ProviderError("has no usable key")
    return keys


def _n_bits(number: str) -> int:
    """Return the length of a number in base64url (RFC 7518, Base64urlUInt)."""
    return int.from_bytes(urlsafe_b64decode(number + "==")).bit_length()


# A private part that a provider publishes by mistake must not be read, and x5c could contradict the key.
_PUBLIC_PARTS = {"kty", "use", "alg", "kid", "n", "e", "crv", "x", "y"}


class ProviderKeys:
    """The keys of all issuers. A thread fetches them: at once, then every five minutes, and if a token names another.

    While a provider is unavailable, its last keys stay for ``max_age_s``. Methods may be called by any thread.

    Args:
        issuers: the providers.
        max_age_s: age at which keys are dropped if they cannot be fetched again, seconds.
        on_removed: called after a key was removed, by the thread; the issuer may have removed it for being stolen.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        *,
        max_age_s: float,
        on_removed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_age_s = max_age_s
        self._on_removed = on_removed
        self._clock = clock
        self._states = {issuer.url: _IssuerState(issuer) for issuer in issuers}
        self._wake = threading.Event()
        self._first_done = threading.Event()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="provider-keys", daemon=True)

    def start(self, wait_s: float = 0.0) -> None:
        """Start to fetch; wait at most some seconds until each provider has been tried once."""
        self._thread.start()
        self._first_done.wait(wait_s)

    def close(self) -> None:
        """Stop; a fetch in progress is not waited for."""
        self._is_closed = True
        self._wake.set()

    def get(self, issuer: str) -> Sequence[Key]:
        """Return the keys of an issuer; empty: there are none, or the issuer is unknown."""
        state = self._states.get(issuer)
        return () if state is None else state.keys

    def request_fetch(self, issuer: str) -> bool:
        """Ask for a fetch because a token names an unknown key; return whether one is due, which the rate limits."""
        state = self._states[issuer]
        if self._clock() < state.attempted_at + _UNKNOWN_S:
            return False
        state.due_at = float("-inf")
        self._wake.set()
        return True

    def problems(self) -> dict[str, str]:
        """Return by issuer why its keys could not be fetched the last time; empty: all could."""
        return {url: state.problem for url, state in self._states.items() if state.problem}

    def fetch_due(self) -> float:
        """Fetch the keys that are due, drop keys that are too old, and return the seconds until the next fetch."""
        for state in self._states.values():
            if self._clock() >= state.due_at:
                self._fetch(state)
            if state.keys and self._clock() - state.fetched_at > self._max_age_s:
                _log.error("token_keys_dropped", issuer=state.issuer.url, max_age_s=self._max_age_s)
                self._set_keys(state, [])
        return max(0.0, min(state.due_at for state in self._states.values()) - self._clock())

    def _run(self) -> None:
        while not self._is_closed:
            wait_s = self.fetch_due()
            self._first_done.set()
            self._wake.wait(wait_s)
            self._wake.clear()

    def _fetch(self, state: _IssuerState) -> None:
        state.attempted_at = self._clock()
        try:
            keys = asyncio.run(fetch_keys(state.issuer))
        except Exception as error:  # noqa: BLE001 - if the thread ended, keys would never be dropped
            problem = str(error) if isinstance(error, ProviderError) else repr(error)
            if problem != state.problem:
                _log.warning("token_keys_unchanged", issuer=state.issuer.url, problem=problem)
            state.problem = problem
            state.retry_s = min(max(2 * state.retry_s, _FIRST_RETRY_S), _LAST_RETRY_S)
            state.due_at = self._clock() + state.retry_s
            return
        state.problem, state.retry_s = "", 0.0
        state.fetched_at = state.attempted_at
        state.due_at = self._clock() + _REFRESH_S
        self._set_keys(state, keys)

    def _set_keys(self, state: _IssuerState, keys: Sequence[Key]) -> None:
        prints = {key.thumbprint() for key in keys}
        removed, added = state.prints - prints, prints - state.prints
        state.keys, state.prints = keys, prints
        if added or removed:
            _log.info("token_keys_read", issuer=state.issuer.url, added=len(added), removed=len(removed))
        if removed:
            self._on_removed()


class _IssuerState:
    """The last keys of an issuer, and when they were fetched; times are those of the monotonic clock."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.keys: Sequence[Key] = ()
        self.prints: set[str] = set()
        self.problem = ""
        self.retry_s = 0.0
        self.attempted_at = self.fetched_at = self.due_at = float("-inf")
