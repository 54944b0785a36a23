"""Who may ask: API keys, their scopes and rates."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from hmac import compare_digest
from typing import Protocol

import structlog

from skewless.contract.errors import AccessError, DefinitionError, PlaceError, RateError, ScopeError
from skewless.contract.settings import Settings
from skewless.infra.access.api_keys import SECRET_CHARS, ApiKey, Scope, hash_secret, key_prefix
from skewless.infra.access.key_file import KeyFile, Stamp
from skewless.serving.access.rules import is_loopback

_LOOK_SECONDS = 1.0
_NOBODY = bytes(32)  # the SHA-256 of nothing that anybody knows
_log = structlog.get_logger()
Headers = Sequence[tuple[bytes, bytes]]


class Access(Protocol):
    """Decides before a request is read any further; both ways return who asks.

    Headers are pairs of lower-case name and value. A scope of None is any valid key.
    """

    def allow(self, headers: Headers, scope: Scope | None) -> str:
        """Let one request pass, and count it.

        Raises:
            AccessError: no key was sent, or none that is valid.
            ScopeError: the key does not have the scope.
            RateError: the key has asked more often than it may.
        """
        ...

    def check(self, headers: Headers, scope: Scope | None) -> str:
        """Say whether a request that has passed may do one thing more; it is not counted again.

        Raises:
            AccessError: no key was sent, or none that is valid.
            ScopeError: the key does not have the scope.
        """
        ...


class OpenAccess:
    """Everybody may do everything: where nobody but this machine can ask, or a gateway decides."""

    def allow(self, headers: Headers, scope: Scope | None) -> str:  # noqa: ARG002 - the protocol's
        """Let a request pass."""
        return "anyone"

    check = allow


class KeyAccess:
    """Those may ask who have a key in the file; a change of the file counts within a second.

    A key names its owner, so one hash and one comparison in constant time decide, whoever asks. A file that is broken
    is logged and leaves the keys as they were; a file that is gone leaves none.

    Args:
        file: the keys.
        now_us: the time by which keys expire.
        clock: seconds that never go back.
        share: this worker's part of each key's rate, above 0 and at most 1.

    Raises:
        PlaceError: the file cannot be read.
    """

    def __init__(
        self, file: KeyFile, now_us: Callable[[], int], *, clock: Callable[[], float] = time.monotonic, share: float = 1
    ) -> None:
        self._file = file
        self._now_us = now_us
        self._clock = clock
        self._share = share
        now = clock()
        self._look_at = now + _LOOK_SECONDS
        self._stamp: Stamp | None = file.stamp()
        self._callers: Mapping[bytes, _Caller] = self._called(file.read(), {})

    def any_valid(self) -> bool:
        """Say whether there is a key that has not expired."""
        return any(caller.key.is_valid_at(self._now_us()) for caller in self._callers.values())

    def allow(self, headers: Headers, scope: Scope | None) -> str:
        """Let one request pass, and count it."""
        now = self._clock()
        caller = self._caller(headers, now)
        if scope is not None and scope not in caller.scopes:
            raise caller.lacks(scope)
        if caller.bucket is not None:
            wait = caller.bucket.take(now)
            if wait > 0.0:
                raise caller.too_often(wait)
        return caller.name

    def check(self, headers: Headers, scope: Scope | None) -> str:
        """Say whether a request that has passed may do one thing more."""
        caller = self._caller(headers, self._clock())
        if scope is not None and scope not in caller.scopes:
            raise caller.lacks(scope)
        return caller.name

    def _caller(self, headers: Headers, now: float) -> _Caller:
        if now >= self._look_at:
            self._look(now)
        secret = _sent(headers)
        caller = self._callers.get(secret[:-SECRET_CHARS])
        equal = compare_digest(hash_secret(secret), _NOBODY if caller is None else caller.digest)
        if caller is None or not equal:
            raise _refused("is not known")
        if caller.expires_us is not None and not caller.key.is_valid_at(self._now_us()):
            raise _refused("has expired")
        return caller

    def _look(self, now: float) -> None:
        self._look_at = now + _LOOK_SECONDS
        stamp = self._file.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._callers = self._called(self._file.read(), self._callers)
        except PlaceError as error:
            _log.error("api_keys_unchanged", error=str(error))
        else:
            _log.info("api_keys_read", keys=len(self._callers))

    def _called(self, keys: Sequence[ApiKey], old: Mapping[bytes, _Caller]) -> dict[bytes, _Caller]:
        # Who was there before stays who it is: reading the file must not fill its bucket.
        same = {caller.key: caller for caller in old.values()}
        return {key_prefix(key.name): same.get(key) or _Caller(key, self._share) for key in keys}


def open_access(settings: Settings, host: str, file: KeyFile, now_us: Callable[[], int], *, share: float = 1) -> Access:
    """Return who may ask a server that listens on an address; ``auth: off`` beyond loopback is logged as a warning.

    Args:
        settings: ``auth`` says whether keys are needed.
        host: what the server listens on.
        file: the keys.
        now_us: the time by which keys expire.
        share: this worker's part of each key's rate.

    Raises:
        DefinitionError: keys are needed, and there is none that is valid.
        PlaceError: the file of keys cannot be read.
    """
    local = is_loopback(host)
    if settings.auth == "off" or (settings.auth == "auto" and local):
        if not local:
            _log.warning("auth_is_off", host=host, fix="put a gateway before it, or remove `auth: off`")
        return OpenAccess()
    access = KeyAccess(file, now_us, share=share)
    if access.any_valid():
        return access
    raise DefinitionError(
        f"setting {'host' if settings.auth == 'auto' else 'auth'!r}",
        "asks for API keys, and there is none that is valid",
        value=host if settings.auth == "auto" else settings.auth,
        fix="make one with `skewless keys add NAME --scope predict`, or listen on 127.0.0.1 with auth: auto",
    )


class _Caller:
    """The owner of a key, as one worker sees it."""

    __slots__ = ("bucket", "digest", "expires_us", "key", "name", "scopes")

    def __init__(self, key: ApiKey, share: float) -> None:
        self.key = key
        self.name = key.name
        self.digest = key.digest
        self.scopes = key.scopes
        self.expires_us = key.expires_us
        self.bucket = None if key.rate is None else TokenBucket(key.rate * share)

    def lacks(self, scope: Scope) -> ScopeError:
        fix = f"use a key made with `skewless keys add NAME --scope {scope}`"
        return ScopeError(f"API key {self.name!r}", f"lacks the scope {scope!r}", fix=fix)

    def too_often(self, wait: float) -> RateError:
        problem = f"has asked more than {self.key.rate:g} times a second"
        fix = "ask less often, or again after Retry-After seconds"
        return RateError(f"API key {self.name!r}", problem, fix=fix, wait_s=math.ceil(wait))


def _sent(headers: Headers) -> bytes:
    for name, value in headers:
        if name == b"x-api-key":
            return value
        if name == b"authorization" and (value[:7] == b"Bearer " or value[:7].lower() == b"bearer "):
            return value[7:]
    raise _refused("is missing")


def _refused(problem: str) -> AccessError:
    fix = "send a valid one in the header `Authorization: Bearer` or `X-API-Key`; `skewless keys add` makes one"
    return AccessError("API key", problem, fix=fix)


class TokenBucket:
    """Lets ``rate`` requests a second pass on average, and ``max(rate, 1)`` at once after a rest.

    Kept as the moment at which the bucket is full again (the generic cell rate algorithm), so that nothing has to be
    filled up: one comparison decides for whoever asks seldom.

    Args:
        rate: tokens a second, above 0.

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
        """Take a token and return 0, or take none and return the seconds until there is one.

        Args:
            now: seconds on a clock that never goes back.
        """
        if now >= self._full_at:
            self._full_at = now + self._period
            return 0.0
        wait = self._full_at - self._tolerance - now
        if wait > 0.0:
            return wait
        self._full_at += self._period
        return 0.0
