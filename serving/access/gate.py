"""Authentication of requests: by API keys, by tokens of an identity provider, and by client certificates.

The gate does not depend on a transport: it gets headers, or the metadata of gRPC, and the certificate of the
connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from hmac import compare_digest
from typing import Protocol

from skewless.contract.errors import DefinitionError, StoreError
from skewless.contract.loopback import is_loopback
from skewless.contract.settings import Settings
from skewless.infra.platform.access.api_keys import SECRET_CHARS, ApiKey, KeyStore, Scope, key_prefix
from skewless.infra.platform.host.plugins import find_plugin
from skewless.infra.platform.telemetry.logger import EventLogger
from skewless.infra.reads.online.shared_rates import SharedRates
from skewless.serving.access.caller import ANYONE, CERTIFICATE, KEY, ON_PLATFORM, Caller, NewBucket, key_error
from skewless.serving.access.certificate import PeerCertificate
from skewless.serving.access.rates import RateSharing, TokenBucket

_DUMMY_DIGEST = bytes(32)  # compared for unknown keys, so that they take as long as known ones
_KEY_START = b"sk_"
_KEYS_SECONDS = 0.5
_log = EventLogger()
Headers = Sequence[tuple[bytes, bytes]]


class Tokens(Protocol):
    """Verifies tokens that callers send in place of API keys. Calls never wait."""

    def get(self, token: bytes) -> Caller:
        """Return the caller of a token.

        Raises:
            AccessError: the token is invalid now.
        """
        ...

    def problems(self) -> dict[str, str]:
        """Return problems that do not keep the server from working, by thing; anybody can read them."""
        ...

    def close(self) -> None:
        """Stop all threads."""
        ...


OpenTokens = Callable[[Callable[[], int], NewBucket], Tokens]
"""Opens the verifier of tokens, from the clock for their validity, microseconds.

The entry point ``oidc`` of ``skewless.tokens`` returns it for settings with ``token_issuers``; it raises a
``DefinitionError`` for settings that are invalid.
"""


class Access(Protocol):
    """Authenticates requests before their bodies are read. Calls never wait."""

    def allow(self, headers: Headers, scope: Scope | None, certificate: PeerCertificate | None = None) -> Caller:
        """Return the caller of a request, which is counted against the caller's rate.

        The caller also says which models it may use: ``Caller.choose_model``.

        Args:
            headers: pairs of lower-case name and value.
            scope: that the request requires; None: any caller may send it.
            certificate: that the client has shown on this connection; None: none.

        Raises:
            AccessError: the request has no credential, or an invalid one.
            ScopeError: the caller does not have the scope.
            RateError: the caller has exceeded its rate.
        """
        ...

    def refresh(self) -> None:
        """Read the API keys if they have changed. It may take long: call it in a thread, twice a second."""
        ...

    def problems(self) -> dict[str, str]:
        """Return problems that do not keep the server from working, by thing; anybody can read them."""
        ...

    def close(self) -> None:
        """Stop all threads."""
        ...


class OpenAccess:
    """Admits requests without a credential: the server listens on loopback, or others authenticate its callers.

    Args:
        caller: whose scopes all callers have.
    """

    def __init__(self, caller: Caller = ANYONE) -> None:
        self._caller = caller

    def allow(
        self,
        headers: Headers,  # noqa: ARG002 - the protocol's
        scope: Scope | None,
        certificate: PeerCertificate | None = None,  # noqa: ARG002 - as above
    ) -> Caller:
        """Admit a request."""
        if scope is not None and scope not in self._caller.scopes:
            self._caller.require(scope)
        return self._caller

    def refresh(self) -> None:
        """Do nothing, because there are no keys."""

    def problems(self) -> dict[str, str]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Do nothing."""


class KeyAccess:
    """Admits requests with a stored key, a token, or the certificate of a stored key.

    An API key contains its owner's name. So each request costs one hash and one comparison in constant time, and does
    not read the database. If keys cannot be read, this is logged and the previous keys stay valid.

    Args:
        store: the keys.
        now_us: the clock for the expiry of keys, microseconds.
        clock: a monotonic clock, seconds.
        new_bucket: returns the bucket of a key from a name that is unique in the project, and its rate.
        tokens: verifies tokens; None: only keys and certificates are accepted.
        resources: closed with the access.

    Raises:
        StoreError: the keys cannot be read.
    """

    def __init__(
        self,
        store: KeyStore,
        now_us: Callable[[], int],
        *,
        clock: Callable[[], float] = time.monotonic,
        new_bucket: NewBucket = lambda _, rate: TokenBucket(rate),
        tokens: Tokens | None = None,
        resources: ExitStack | None = None,
    ) -> None:
        self._store = store
        self._now_us = now_us
        self._clock = clock
        self._new_bucket = new_bucket
        self._tokens = tokens
        self._resources = resources or ExitStack()
        self._problem = ""
        # Before the read: a change during it is noticed at the next refresh.
        self._revision = store.revision()
        self._callers: Mapping[ApiKey, Caller] = {}
        self._set_keys(store.read())

    def has_valid_key(self) -> bool:
        """Return whether at least one key has not expired, or tokens are accepted."""
        return self._tokens is not None or any(key.is_valid_at(self._now_us()) for key in self._callers)

    def allow(self, headers: Headers, scope: Scope | None, certificate: PeerCertificate | None = None) -> Caller:
        """Return the caller of a request, which is counted against the caller's rate."""
        secret = _read_secret(headers)
        if secret is None:
            caller = self._find_certificate(certificate)
        elif self._tokens is None or secret.startswith(_KEY_START):
            caller = self._find_key(secret)
        else:
            caller = self._tokens.get(secret)
        if scope is not None and scope not in caller.scopes:
            caller.require(scope)
        if caller.bucket is not None:
            wait = caller.bucket.take(self._clock())
            if wait > 0.0:
                raise caller.rate_error(wait)
        return caller

    def refresh(self) -> None:
        """Read the keys if they have changed; an error is logged once, and the previous keys stay valid."""
        try:
            revision = self._store.revision()
            if revision != self._revision:
                self._set_keys(self._store.read())
                self._revision = revision
                _log.info("api_keys_read", keys=len(self._callers))
        except StoreError as error:
            if self._problem != (problem := str(error)):
                _log.error("api_keys_unchanged", error=problem)
            self._problem = problem
        else:
            self._problem = ""

    def problems(self) -> dict[str, str]:
        """Return the issuers whose keys could not be fetched."""
        return {} if self._tokens is None else self._tokens.problems()

    def close(self) -> None:
        """Stop the threads of tokens and rates."""
        self._resources.close()

    def _set_keys(self, keys: Sequence[ApiKey]) -> None:
        # A caller whose key is unchanged keeps its bucket: a reload must not refill it.
        callers = {key: self._callers.get(key) or _make_caller(key, self._new_bucket) for key in keys}
        self._callers = callers
        self._by_prefix = {key_prefix(key.name): caller for key, caller in callers.items() if key.certificate is None}
        self._by_certificate = {key.certificate: caller for key, caller in callers.items() if key.certificate}

    def _find_key(self, secret: bytes) -> Caller:
        caller = self._by_prefix.get(secret[:-SECRET_CHARS])
        # As `hash_secret`, without its call.
        equal = compare_digest(sha256(secret).digest(), _DUMMY_DIGEST if caller is None else caller.digest)
        if caller is None or not equal:
            raise key_error("is unknown")
        if caller.expires_us is not None and self._now_us() >= caller.expires_us:
            raise key_error("has expired")
        return caller

    def _find_certificate(self, certificate: PeerCertificate | None) -> Caller:
        callers = self._by_certificate
        if certificate is None or not callers:
            raise key_error("is missing")
        caller = next((callers[name] for name in certificate.names if name in callers), None)
        if caller is None:
            raise key_error("is missing, and no key has a name of the client certificate")
        now_us = self._now_us()
        first_us, last_us = certificate.validity_us
        if not first_us <= now_us <= last_us or (caller.expires_us is not None and now_us >= caller.expires_us):
            raise key_error("has expired, or the client certificate has")
        return caller


async def follow_keys(access: Access) -> None:
    """Read changed keys twice a second, until it is cancelled: a revoked key is rejected within a second."""
    while True:
        await asyncio.sleep(_KEYS_SECONDS)
        await asyncio.to_thread(access.refresh)


def _read_secret(headers: Headers) -> bytes | None:
    """Return the key or the token of a request; None: it has none.

    A header counts before a certificate: a proxy with a certificate of its own can pass keys on.
    """
    for name, value in headers:
        if name == b"x-api-key":
            return value
        if name == b"authorization" and (value[:7] == b"Bearer " or value[:7].lower() == b"bearer "):
            return value[7:]
    return None


def _make_caller(key: ApiKey, new_bucket: NewBucket) -> Caller:
    return Caller(
        KEY if key.certificate is None else CERTIFICATE,
        key.name,
        digest=key.digest or _DUMMY_DIGEST,
        scopes=key.scopes,
        models=key.models,
        expires_us=key.expires_us,
        rate=key.rate,
        bucket=None if key.rate is None else new_bucket(f"key/{key.name}", key.rate),
    )


def open_access(
    settings: Settings, store: KeyStore, now_us: Callable[[], int], *, project: str = "", redis_url: str = ""
) -> Access:
    """Return the access control of a server; ``auth: off`` on other than loopback addresses logs a warning.

    Args:
        settings: ``auth`` says whether keys are required, ``host`` is the address on which the server listens.
        store: the keys.
        now_us: the clock for the expiry of keys, microseconds.
        project: its name, for rates that all servers share.
        redis_url: of the online store, for the same.

    Raises:
        DefinitionError: keys are required, and none is valid; a setting of tokens or rates is invalid; or tokens are
            accepted, and their plug-in is not installed.
        StoreError: the keys cannot be read.
    """
    host = settings.host
    local = is_loopback(host)
    if settings.platform != "none" and settings.auth == "auto":
        return OpenAccess(ON_PLATFORM)
    open_tokens = _read_tokens(settings)
    if settings.auth == "off" or (settings.auth == "auto" and local):
        if not local:
            _log.warning("auth_is_off", host=host, fix="put a gateway in front of the server, or remove `auth: off`")
        elif open_tokens is not None:
            _log.warning("auth_is_off", host=host, fix="set `auth: required`, so that tokens are checked on loopback")
        return OpenAccess()
    resources = ExitStack()
    new_bucket = _open_rates(settings, project, redis_url, resources)
    tokens = None if open_tokens is None else open_tokens(now_us, new_bucket)
    if tokens is not None:
        resources.callback(tokens.close)
    access = KeyAccess(store, now_us, new_bucket=new_bucket, tokens=tokens, resources=resources)
    if access.has_valid_key():
        return access
    access.close()
    raise DefinitionError(
        f"setting {'host' if settings.auth == 'auto' else 'auth'!r}",
        "requires API keys, and no key is valid",
        value=host if settings.auth == "auto" else settings.auth,
        fix="create one with `skewless keys add NAME --scope predict`, or listen on 127.0.0.1 with auth: auto",
    )


def _open_rates(settings: Settings, project: str, redis_url: str, resources: ExitStack) -> NewBucket:
    share = 1 / settings.workers
    if settings.rate_limit == "worker":
        return lambda _, rate: TokenBucket(rate * share)
    sharing = RateSharing(SharedRates(redis_url, project), share)
    resources.callback(sharing.close)
    return sharing.new_bucket


def _read_tokens(settings: Settings) -> OpenTokens | None:
    """Return what opens the verifier of tokens; None: tokens are not accepted."""
    if not settings.token_issuers:
        return None
    read_tokens: Callable[[Settings], OpenTokens] | None = find_plugin("skewless.tokens", "oidc")
    if read_tokens is None:
        fix = "pip install 'skewless[oidc]', or remove the setting"
        raise DefinitionError("setting 'token_issuers'", "needs a package that is not installed", fix=fix)
    return read_tokens(settings)
