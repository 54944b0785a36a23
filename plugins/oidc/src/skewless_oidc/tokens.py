"""Verifies tokens (JSON Web Tokens, RFC 7519) of OpenID Connect issuers, and remembers the verified ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, TypeVar

import orjson
from joserfc import jws
from joserfc.errors import ClaimError, JoseError
from joserfc.jwk import Key
from joserfc.jwt import JWTClaimsRegistry

from skewless.contract.errors import DefinitionError
from skewless.contract.names import is_name
from skewless.contract.render import shorten
from skewless.contract.settings import Settings
from skewless.infra.platform.access.api_keys import SCOPES
from skewless.serving.access.caller import TOKEN, Bucket, Caller, NewBucket, token_error
from skewless.serving.access.gate import OpenTokens
from skewless_oidc.provider_keys import Issuer, ProviderKeys, is_safe_url

# All asymmetric: with HMAC, a server that can verify a token could also make one.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519")
_TYPES = {"jwt", "at+jwt"}  # other tokens of an issuer, such as those of a logout, are not meant for requests
_MAX_BYTES = 16_384
_MAX_REMEMBERED = 10_000
_SECOND = 1_000_000
_LAST_SECOND = 2**43  # later times, far beyond all calendars, are cut to it
_FIRST_FETCH_S = 5.0
_NAME_CHARS = 200
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, kw_only=True)
class TokenRules:
    """Which tokens are accepted, and what their claims mean.

    Args:
        issuers: the providers.
        audience: a value that the claim ``aud`` must contain.
        algorithms: of signatures, some of ``ALGORITHMS``.
        leeway_s: tolerated difference between the clocks of issuer and server, seconds.
        scope_claim: claim with the scopes; its name, or a path of names with dots.
        scope_names: scope by value of this claim; values without one are ignored.
        model_claim: claim with the models that the caller may use, ``*`` for all; None: all.
        rate: requests a second of each subject; None: unlimited.
    """

    issuers: tuple[Issuer, ...]
    audience: str
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    leeway_s: int = 30
    scope_claim: str = "scope"
    scope_names: Mapping[str, str] = field(default_factory=lambda: {scope: scope for scope in SCOPES})
    model_claim: str | None = None
    rate: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> TokenRules:
        """Return the rules of the settings.

        Raises:
            DefinitionError: a setting is missing or invalid.
        """
        _check_urls(settings)
        if not settings.token_audience:
            fix = "name the audience of this server, as the issuer writes it into the claim `aud`"
            raise DefinitionError("setting 'token_audience'", "is missing", fix=fix)
        unsafe = [name for name in settings.token_algorithms if name not in ALGORITHMS]
        if unsafe or not settings.token_algorithms:
            problem = "has an algorithm that is not allowed" if unsafe else "is empty"
            fix = f"use some of {', '.join(ALGORITHMS)}"
            raise DefinitionError("setting 'token_algorithms'", problem, value=unsafe or None, fix=fix)
        names: Mapping[str, str] = settings.token_scope_names or {scope: scope for scope in SCOPES}
        unknown = sorted(set(names.values()) - set(SCOPES))
        if unknown:
            fix = f"map to some of {', '.join(SCOPES)}"
            raise DefinitionError("setting 'token_scope_names'", "has an unknown scope", value=unknown[0], fix=fix)
        return cls(
            issuers=tuple(Issuer(url=url, keys_url=settings.token_keys_url) for url in settings.token_issuers),
            audience=settings.token_audience,
            algorithms=settings.token_algorithms,
            leeway_s=settings.token_leeway_seconds,
            scope_claim=settings.token_scope_claim,
            scope_names=names,
            model_claim=settings.token_model_claim,
            rate=settings.token_rate or None,
        )


def read_tokens(settings: Settings) -> OpenTokens:
    """Check the settings; return what opens the verifier of tokens, see ``OpenTokens`` of the core.

    Raises:
        DefinitionError: a setting is missing or invalid.
    """
    rules = TokenRules.of(settings)

    def open_tokens(now_us: Callable[[], int], new_bucket: NewBucket) -> TokenVerifier:
        tokens = TokenVerifier(rules, now_us, max_age_s=settings.token_keys_hours * 3_600, new_bucket=new_bucket)
        tokens.start()
        return tokens

    return open_tokens


def _check_urls(settings: Settings) -> None:
    urls = [("token_issuers", url) for url in settings.token_issuers]
    if settings.token_keys_url is not None:
        urls.append(("token_keys_url", settings.token_keys_url))
        if len(settings.token_issuers) > 1:
            fix = "remove it, so that each issuer's discovery document names its keys"
            raise DefinitionError("setting 'token_keys_url'", "is of one issuer, but there are several", fix=fix)
    for name, url in urls:
        if not is_safe_url(url):
            fix = "use an https URL without a password; http is possible only on this machine"
            raise DefinitionError(f"setting {name!r}", "is not a safe URL", value=url, fix=fix)


class TokenVerifier:
    """Returns the callers of tokens; a verified token is remembered until it expires, by its SHA-256.

    Tokens are verified only with keys that are known already: nothing here waits for a provider.

    Args:
        rules: see there.
        now_us: the clock for the validity of tokens, microseconds.
        max_age_s: see ``ProviderKeys``.
        new_bucket: returns a bucket, from a name that is unique in the project, and a rate.
    """

    def __init__(
        self, rules: TokenRules, now_us: Callable[[], int], *, max_age_s: float, new_bucket: NewBucket
    ) -> None:
        class Registry(jws.JWSRegistry):
            max_header_length = 4_096

        # Unknown header parameters must be ignored (RFC 7515, 4), which the library calls not strict.
        self._registry = Registry(algorithms=list(rules.algorithms), strict_check_header=False)
        self._rules = rules
        self._issuers = frozenset(issuer.url for issuer in rules.issuers)
        self._now_us = now_us
        self._new_bucket = new_bucket
        self._remembered: dict[bytes, Caller] = {}
        self._buckets: dict[str, Bucket] = {}
        self._lock = threading.Lock()
        self.keys = ProviderKeys(rules.issuers, max_age_s=max_age_s, on_removed=self._forget)

    def start(self) -> None:
        """Start to fetch keys, and wait some seconds for the first ones; the server also starts without them."""
        self.keys.start(_FIRST_FETCH_S)

    def close(self) -> None:
        """Stop to fetch keys."""
        self.keys.close()

    def problems(self) -> dict[str, str]:
        """Return the issuers whose keys could not be fetched, without the reason: anybody can read them."""
        return {f"tokens of {issuer}": "the keys cannot be fetched; see the log" for issuer in self.keys.problems()}

    def get(self, token: bytes) -> Caller:
        """Return the caller of a token.

        Raises:
            AccessError: the token is invalid now.
        """
        digest = sha256(token).digest()
        remembered = self._remembered
        caller = remembered.get(digest) or self._verify(token)
        now_us = self._now_us()
        if now_us >= caller.expires_us:  # type: ignore[operator]  # tokens have one
            raise token_error("has expired")
        if now_us < caller.valid_from_us:
            raise token_error("is not valid yet")
        if digest not in remembered:  # only valid tokens take space
            self._store(remembered, digest, caller)
        return caller

    def _store(self, cache: dict[_K, _V], key: _K, value: _V) -> None:
        """Add a value to a bounded cache, in place of the oldest one; other threads may do the same."""
        with self._lock:
            if len(cache) >= _MAX_REMEMBERED:
                del cache[next(iter(cache))]
            cache[key] = value

    def _forget(self) -> None:
        # A new dict: another thread may read this one.
        self._remembered = {}

    def _verify(self, token: bytes) -> Caller:
        if len(token) > _MAX_BYTES:
            raise token_error(f"has more than {_MAX_BYTES} bytes")
        signature, header, claims = self._parse(token)
        issuer = claims.get("iss")
        if not isinstance(issuer, str) or issuer not in self._issuers:
            raise token_error("is of an unknown issuer")
        self._check_signature(signature, self._find_key(issuer, header))
        return self._make_caller(issuer, claims)

    def _parse(self, token: bytes) -> tuple[jws.CompactSignature, Mapping[str, Any], Mapping[str, Any]]:
        """Return signature, header and claims of a token; nothing of it is verified."""
        try:
            # The library would raise RecursionError for a deeply nested header, and other errors for one of numbers.
            signature = jws.extract_compact(token, registry=self._registry)
            claims = orjson.loads(signature.payload or b"")
        except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
            raise token_error("is malformed") from None
        header: object = signature.headers()
        if not isinstance(header, dict) or not isinstance(claims, dict):
            raise token_error("is malformed")
        # No extension is supported that an issuer could call critical; `b64` changes the signed text.
        if "crit" in header or "b64" in header:
            raise token_error("has a critical header")
        if header.get("alg") not in self._rules.algorithms:
            raise token_error("has a forbidden algorithm")
        kind = header.get("typ", "JWT")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
            raise token_error("has another type than `JWT` or `at+jwt`")
        return signature, header, claims

    def _find_key(self, issuer: str, header: Mapping[str, Any]) -> Key:
        """Return the key that a header names; the keys in a header (`jwk`, `jku`, `x5c`, `x5u`) are ignored."""
        known = self.keys.get(issuer)
        if not known:
            raise token_error("cannot be verified, because the keys of its issuer are unavailable")
        kid, algorithm = header.get("kid"), header["alg"]
        keys = [key for key in known if kid is None or key.kid == kid]
        if not keys:
            self.keys.request_fetch(issuer)
            raise token_error("is signed with an unknown key")
        # Without an id, only a single key is unambiguous (OpenID Connect Core, 10.1).
        if kid is None and len(known) > 1:
            raise token_error("does not name its key")
        fitting = [key for key in keys if key.alg in {None, algorithm}]
        if not fitting:
            raise token_error("has another algorithm than its key")
        return fitting[0]

    def _check_signature(self, signature: jws.CompactSignature, key: Key) -> None:

        try:
            is_valid = jws.validate_compact(signature, key, registry=self._registry)
        except (JoseError, ValueError, TypeError):  # the key is of another kind than the algorithm
            is_valid = False
        if not is_valid:
            raise token_error("has an invalid signature")

    def _make_caller(self, issuer: str, claims: Mapping[str, Any]) -> Caller:
        """Return the caller of the claims of a verified token, if they are valid now."""
        rules = self._rules
        self._check_claims(issuer, claims)
        subject = claims["sub"]
        scopes = {rules.scope_names.get(value, "") for value in _values(claims, rules.scope_claim)} - {""}
        models: set[str] | None = None
        if rules.model_claim is not None:
            values = _values(claims, rules.model_claim)
            models = None if "*" in values else {value for value in values if is_name(value)}
        until = int((min(claims["exp"], _LAST_SECOND) + rules.leeway_s) * _SECOND)
        since = int((min(claims.get("nbf", 0), _LAST_SECOND) - rules.leeway_s) * _SECOND)
        return Caller(
            TOKEN,
            shorten(subject, _NAME_CHARS),
            scopes=scopes,
            models=models,
            valid_from_us=since,
            expires_us=until,
            rate=rules.rate,
            bucket=None if rules.rate is None else self._bucket(f"{issuer} {subject}", rules.rate),
        )

    def _check_claims(self, issuer: str, claims: Mapping[str, Any]) -> None:

        registry = JWTClaimsRegistry(
            now=self._now_us() // _SECOND,
            leeway=self._rules.leeway_s,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": self._rules.audience},
            sub={"essential": True},
            exp={"essential": True},
        )
        try:
            registry.validate(dict(claims))
        except ClaimError as error:
            problem = _CLAIM_PROBLEMS.get(error.claim, f"has a missing or invalid claim {error.claim!r}")
            raise token_error(problem) from None

    def _bucket(self, subject: str, rate: float) -> Bucket:
        """Return the bucket of a subject, which all its tokens share."""
        name = sha256(subject.encode()).hexdigest()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._new_bucket(f"token/{name}", rate)
            self._store(self._buckets, name, bucket)
        return bucket


_CLAIM_PROBLEMS = {"aud": "is for another audience", "exp": "has expired", "nbf": "is not valid yet"}


def _values(claims: Mapping[str, Any], name: str) -> AbstractSet[str]:
    """Return the values of a claim, a text with spaces or a list of texts; empty: the claim is missing or of no kind.

    Args:
        name: of the claim; if there is none, dots separate the names of a path.

    >>> sorted(_values({"scope": "predict admin"}, "scope")), _values({"realm": {"roles": ["a", 7]}}, "realm.roles")
    (['admin', 'predict'], {'a'})
    """
    value: Any = claims.get(name)
    if value is None and "." in name:
        value = claims
        for part in name.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, str):
        return set(value.split())
    return {item for item in value if isinstance(item, str)} if isinstance(value, list) else set()
