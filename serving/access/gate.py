"""Authentication of requests by API keys, with rate limits and the scope that each route requires."""

from __future__ import annotations

import ipaddress
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from hmac import compare_digest
from typing import Literal, Protocol

from skewless.contract.errors import AccessError, DefinitionError, RateError, ScopeError, StoreError
from skewless.contract.settings import Settings
from skewless.infra.access.api_keys import SECRET_CHARS, ApiKey, KeyStore, Scope, hash_secret, key_prefix
from skewless.infra.telemetry.logger import EventLogger

# nothing: no key; page: no key on loopback, otherwise any valid key; key: any valid key
Need = Scope | Literal["nothing", "page", "key"]

_HEALTH_PATHS = {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
_PAGE_PATHS = {"/metrics", "/docs", "/openapi.json"}
_PAGE_ASSETS = "/docs/"
_READ_METHODS = {"GET", "HEAD"}
_POST_SCOPES: tuple[tuple[re.Pattern[str], Need], ...] = (
    (re.compile(r"/predict"), "predict"),
    (re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer"), "predict"),
    (re.compile(r"/events/[^/]+|/push|/feedback(/[^/]+)?"), "feedback"),
    (re.compile(r"/v2/repository/index"), "key"),
)
_DUMMY_DIGEST = bytes(32)  # compared for unknown keys, so that they take as long as known ones
_log = EventLogger()
Headers = Sequence[tuple[bytes, bytes]]


def scope_of(method: str, path: str) -> Need:
    """Return the scope that a request requires; an unknown path with a writing method requires ``admin``.

    Args:
        method: in capitals.
        path: decoded, without the query.

    >>> [scope_of("POST", "/predict"), scope_of("GET", "/health/ready"), scope_of("GET", "/models")]
    ['predict', 'nothing', 'key']
    >>> scope_of("POST", "/v2/repository/models/fraud/load")
    'admin'
    """
    if method in _READ_METHODS:
        if path in _HEALTH_PATHS:
            return "nothing"
        return "page" if path in _PAGE_PATHS or path.startswith(_PAGE_ASSETS) else "key"
    if method == "POST":
        for pattern, need in _POST_SCOPES:
            if pattern.fullmatch(path):
                return need
    return "admin"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address; False if in doubt.

    Args:
        host: a name or an address. The only loopback name is ``localhost``; ``0.0.0.0``, ``::`` and an empty host mean
            all addresses of the machine.

    >>> [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "0.0.0.0", "::", "")]
    [True, True, True, True, False, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # `::ffff:127.0.0.1` is loopback only by its IPv4 part.
    ipv4 = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address.is_loopback if ipv4 is None else ipv4.is_loopback


class Access(Protocol):
    """Authenticates requests before their bodies are read; ``allow`` and ``check`` return the caller's name.

    Headers are pairs of lower-case name and value. With scope None any valid key suffices.
    """

    def allow(self, headers: Headers, scope: Scope | None) -> str:
        """Admit one request, and count it against the key's rate.

        Raises:
            AccessError: the request has no key, or an invalid one.
            ScopeError: the key does not have the scope.
            RateError: the key has exceeded its rate.
        """
        ...

    def check(self, headers: Headers, scope: Scope | None) -> str:
        """Check one more scope of an admitted request, which is not counted again.

        Raises:
            AccessError: the request has no key, or an invalid one.
            ScopeError: the key does not have the scope.
        """
        ...

    def refresh(self) -> None:
        """Read the keys if they have changed. It may take long: call it in a thread, twice a second."""
        ...


class OpenAccess:
    """Admits every request: the server listens on loopback, or a gateway authenticates."""

    def allow(self, headers: Headers, scope: Scope | None) -> str:  # noqa: ARG002 - the protocol's
        """Admit a request."""
        return "anyone"

    check = allow

    def refresh(self) -> None:
        """Do nothing, because there are no keys."""


class PlatformAccess:
    """Admits predictions and reads, whose callers the platform has authenticated; nobody may change the server."""

    def allow(self, headers: Headers, scope: Scope | None) -> str:  # noqa: ARG002 - the protocol's
        """Admit a request, unless it needs the scope ``feedback`` or ``admin``."""
        if scope in {"feedback", "admin"}:
            fix = "send it to a server of the project, or set auth: required"
            raise ScopeError("caller on the platform", f"does not have the scope {scope!r}", fix=fix)
        return "platform"

    check = allow

    def refresh(self) -> None:
        """Do nothing, because there are no keys."""


class KeyAccess:
    """Admits requests with a stored key; changes take effect at the next refresh.

    A key contains its owner's name. So each request costs one hash and one comparison in constant time, and does not
    read the database. If keys cannot be read, this is logged and the previous keys stay valid.

    Args:
        store: the keys.
        now_us: the clock for the expiry of keys, microseconds.
        clock: a monotonic clock, seconds.
        share: this worker's share of each key's rate, above 0 and at most 1.

    Raises:
        StoreError: the keys cannot be read.
    """

    def __init__(
        self,
        store: KeyStore,
        now_us: Callable[[], int],
        *,
        clock: Callable[[], float] = time.monotonic,
        share: float = 1,
    ) -> None:
        self._store = store
        self._now_us = now_us
        self._clock = clock
        self._share = share
        self._problem = ""
        # Before the read: a change during it is noticed at the next refresh.
        self._revision = store.revision()
        self._callers: Mapping[bytes, _Caller] = self._make_callers(store.read(), {})

    def has_valid_key(self) -> bool:
        """Return whether at least one key has not expired."""
        return any(caller.key.is_valid_at(self._now_us()) for caller in self._callers.values())

    def allow(self, headers: Headers, scope: Scope | None) -> str:
        """Admit one request, and count it against the key's rate."""
        caller = self._caller(headers, scope)
        if caller.bucket is not None:
            wait = caller.bucket.take(self._clock())
            if wait > 0.0:
                raise caller.rate_error(wait)
        return caller.name

    def check(self, headers: Headers, scope: Scope | None) -> str:
        """Check one more scope of an admitted request."""
        return self._caller(headers, scope).name

    def refresh(self) -> None:
        """Read the keys if they have changed; an error is logged once, and the previous keys stay valid."""
        try:
            revision = self._store.revision()
            if revision != self._revision:
                self._callers = self._make_callers(self._store.read(), self._callers)
                self._revision = revision
                _log.info("api_keys_read", keys=len(self._callers))
        except StoreError as error:
            if self._problem != (problem := str(error)):
                _log.error("api_keys_unchanged", error=problem)
            self._problem = problem
        else:
            self._problem = ""

    def _caller(self, headers: Headers, scope: Scope | None) -> _Caller:
        secret = _read_key(headers)
        caller = self._callers.get(secret[:-SECRET_CHARS])
        equal = compare_digest(hash_secret(secret), _DUMMY_DIGEST if caller is None else caller.digest)
        if caller is None or not equal:
            raise _key_error("is unknown")
        if caller.expires_us is not None and not caller.key.is_valid_at(self._now_us()):
            raise _key_error("has expired")
        if scope is not None and scope not in caller.scopes:
            raise caller.scope_error(scope)
        return caller

    def _make_callers(self, keys: Sequence[ApiKey], old: Mapping[bytes, _Caller]) -> dict[bytes, _Caller]:
        # A caller whose key is unchanged keeps its token bucket: a reload must not refill it.
        unchanged = {caller.key: caller for caller in old.values()}
        return {key_prefix(key.name): unchanged.get(key) or _Caller(key, self._share) for key in keys}


def open_access(settings: Settings, store: KeyStore, now_us: Callable[[], int], *, share: float = 1) -> Access:
    """Return the access control of a server; ``auth: off`` on other than loopback addresses logs a warning.

    Args:
        settings: ``auth`` says whether keys are required, ``host`` is the address on which the server listens.
        store: the keys.
        now_us: the clock for the expiry of keys, microseconds.
        share: this worker's share of each key's rate.

    Raises:
        DefinitionError: keys are required, and none is valid.
        StoreError: the keys cannot be read.
    """
    host = settings.host
    local = is_loopback(host)
    if settings.platform != "none" and settings.auth == "auto":
        return PlatformAccess()
    if settings.auth == "off" or (settings.auth == "auto" and local):
        if not local:
            _log.warning("auth_is_off", host=host, fix="put a gateway in front of the server, or remove `auth: off`")
        return OpenAccess()
    access = KeyAccess(store, now_us, share=share)
    if access.has_valid_key():
        return access
    raise DefinitionError(
        f"setting {'host' if settings.auth == 'auto' else 'auth'!r}",
        "requires API keys, and no key is valid",
        value=host if settings.auth == "auto" else settings.auth,
        fix="create one with `skewless keys add NAME --scope predict`, or listen on 127.0.0.1 with auth: auto",
    )


class _Caller:
    """State of one API key in this worker."""

    __slots__ = ("bucket", "digest", "expires_us", "key", "name", "scopes")

    def __init__(self, key: ApiKey, share: float) -> None:
        self.key = key
        self.name = key.name
        self.digest = key.digest
        self.scopes = key.scopes
        self.expires_us = key.expires_us
        self.bucket = None if key.rate is None else TokenBucket(key.rate * share)

    def scope_error(self, scope: Scope) -> ScopeError:
        fix = f"use a key that was created with `skewless keys add NAME --scope {scope}`"
        return ScopeError(f"API key {self.name!r}", f"does not have the scope {scope!r}", fix=fix)

    def rate_error(self, wait: float) -> RateError:
        problem = f"has sent more than {self.key.rate:g} requests per second"
        fix = "send fewer requests, or retry after the seconds in Retry-After"
        return RateError(f"API key {self.name!r}", problem, fix=fix, wait_s=math.ceil(wait))


def _read_key(headers: Headers) -> bytes:
    for name, value in headers:
        if name == b"x-api-key":
            return value
        if name == b"authorization" and (value[:7] == b"Bearer " or value[:7].lower() == b"bearer "):
            return value[7:]
    raise _key_error("is missing")


def _key_error(problem: str) -> AccessError:
    fix = "send a valid key in the header `Authorization: Bearer` or `X-API-Key`; `skewless keys add` creates one"
    return AccessError("API key", problem, fix=fix)


class TokenBucket:
    """Allows ``rate`` requests per second on average, and bursts of ``max(rate, 1)``.

    The state is the time at which the bucket will be full again (generic cell rate algorithm). So nothing has to refill
    it, and a caller below its rate costs one comparison.

    Args:
        rate: tokens per second, above 0.

    >>> bucket = TokenBucket(2.0)
    >>> [bucket.take(10.0), bucket.take(10.0), bucket.take(10.0), bucket.take(10.5)]
    [0.0, 0.0, 0.5, 0.0]
    """

    __slots__ = ("_full_at", "_period", "_tolerance")

    def __init__(self, rate: float) -> None:
        self._period = 1.0 / rate
        self._tolerance = self._period * (max(rate, 1.0) - 1.0)
        self._full_at = float("-inf")

    def take(self, now: float) -> float:
        """Take a token and return 0, or return the seconds until one is available.

        Args:
            now: a monotonic clock, seconds.
        """
        if now >= self._full_at:
            self._full_at = now + self._period
            return 0.0
        wait = self._full_at - self._tolerance - now
        if wait > 0.0:
            return wait
        self._full_at += self._period
        return 0.0
