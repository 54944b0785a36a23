"""Callers: who sends a request, and what it may do. The same for API keys, tokens and client certificates."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Protocol

from skewless.contract.errors import AccessError, RateError, ScopeError
from skewless.infra.platform.access.api_keys import SCOPES, Scope


class Bucket(Protocol):
    """Counts the requests of a caller against its rate."""

    def take(self, now: float) -> float:
        """Count a request and return 0, or return the seconds until one is allowed; never waits.

        Args:
            now: a monotonic clock, seconds.
        """
        ...


NewBucket = Callable[[str, float], Bucket]
"""Returns a bucket from a name that is unique in the project, and a rate."""


class Caller:
    """Who sends a request.

    Args:
        kind: of its credential, for errors and logs: ``API key``, ``client certificate`` or ``token``.
        name: of the key, or the subject of the token.
        digest: SHA-256 of the API key; empty: there is none.
        scopes: the operations that it may request.
        models: the only models that it may name; None: all.
        valid_from_us: start of the credential's validity, microseconds, UTC.
        expires_us: end of it, exclusive; None: it does not end.
        rate: requests a second; None: unlimited.
        bucket: counts them; None: unlimited.
    """

    __slots__ = ("bucket", "digest", "expires_us", "kind", "models", "name", "rate", "scopes", "valid_from_us")

    def __init__(
        self,
        kind: str,
        name: str,
        *,
        digest: bytes = b"",
        scopes: AbstractSet[str],
        models: AbstractSet[str] | None = None,
        valid_from_us: int = 0,
        expires_us: int | None = None,
        rate: float | None = None,
        bucket: Bucket | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.digest = digest
        self.scopes = scopes
        self.models = models
        self.valid_from_us = valid_from_us
        self.expires_us = expires_us
        self.rate = rate
        self.bucket = bucket

    def __repr__(self) -> str:
        """Return kind and name, as in errors and logs."""
        return f"{self.kind} {self.name!r}" if self.kind else self.name

    def require(self, scope: Scope) -> None:
        """Check a scope.

        Raises:
            ScopeError: the caller does not have it.
        """
        if scope not in self.scopes:
            raise self._error(f"does not have the scope {scope!r}", f"--scope {scope}")

    def choose_model(self, name: str | None) -> str | None:
        """Return the model of a request that names this model or none, if the caller may use it.

        A caller that is limited to one model does not have to name it.

        Raises:
            ScopeError: the caller may not use the model, or is limited to several and the request names none. The
                error does not depend on the existence of the model.
        """
        models = self.models
        if models is None or name in models:
            return name
        if name is None and len(models) == 1:
            return next(iter(models))
        if name is None and models:
            raise ScopeError(repr(self), "must name a model", fix=f"name one of {', '.join(sorted(models))}")
        problem = "may not use any model" if name is None else f"may not use the model {name!r}"
        raise self._error(problem, "--model MODEL")

    def may_use(self, model: str) -> bool:
        """Return whether the caller may use a model."""
        return self.models is None or model in self.models

    def require_all_models(self) -> None:
        """Check that the caller is not limited to some models: a request concerns all of them.

        Raises:
            ScopeError: it is limited.
        """
        if self.models is not None:
            raise ScopeError(
                repr(self), f"is limited to {', '.join(sorted(self.models))}", fix="use a key without --model"
            )

    def rate_error(self, wait_s: float) -> RateError:
        """Return the error for a caller that has exceeded its rate, and may send a request after some seconds."""
        problem = f"has sent more than {self.rate:g} requests per second"
        fix = "send fewer requests, or retry after the seconds in Retry-After"
        return RateError(repr(self), problem, fix=fix, wait_s=math.ceil(wait_s))

    def _error(self, problem: str, option: str) -> ScopeError:
        fix = f"use a key that was created with `skewless keys add NAME {option}`"
        if not self.kind:
            fix = "send it to a server of the project, or set auth: required"
        elif self.kind == TOKEN:
            fix = "get a token with this right from its issuer; docs/identity.md names the claims"
        return ScopeError(repr(self), problem, fix=fix)


KEY, CERTIFICATE, TOKEN = "API key", "client certificate", "token"
ANYONE = Caller("", "anyone", scopes=frozenset(SCOPES))
# A platform has authenticated it; nobody may change the server there.
ON_PLATFORM = Caller("", "caller on the platform", scopes=frozenset(SCOPES) - {"feedback", "admin"})


def key_error(problem: str) -> AccessError:
    """Return the error for a missing or invalid API key."""
    fix = "send a valid key in the header `Authorization: Bearer` or `X-API-Key`; `skewless keys add` creates one"
    return AccessError(KEY, problem, fix=fix)


def token_error(problem: str) -> AccessError:
    """Return the error for an invalid token; it never contains a part of the token."""
    return AccessError(TOKEN, problem, fix="get a new token from its issuer; docs/identity.md lists its claims")
