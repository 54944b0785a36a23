"""A verifier of tokens with a clock and a provider in memory, without a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey

from skewless.contract.errors import AccessError
from skewless.serving.access.caller import Caller
from skewless.serving.access.rates import TokenBucket
from skewless_oidc.provider_keys import Issuer
from skewless_oidc.tokens import TokenRules, TokenVerifier
from tests.servers.identity_provider import AUDIENCE, Provider

NOW_S = 1_800_000_000
SECOND = 1_000_000
URL = "https://id.shop.example"
EC, RSA = ECKey.generate_key("P-256", {"kid": "ec"}), RSAKey.generate_key(2048, {"kid": "rsa"})
STRANGER = ECKey.generate_key("P-256", {"kid": "ec"})
GOOD = Provider(url=URL).claims(NOW_S)


class KeysInMemory:
    """The keys of the provider, in memory; counts the requests to fetch them again."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.requests = 0

    def get(self, issuer: str) -> list[Any]:
        provider = self.provider
        return [provider.keys[kid] for kid in provider.published] if issuer == provider.url else []

    def request_fetch(self, issuer: str) -> bool:
        assert issuer == self.provider.url
        self.requests += 1
        return True


@dataclass
class TokenDesk:
    """A verifier with a clock, and the provider that it trusts."""

    provider: Provider = field(default_factory=lambda: Provider(url=URL))
    now_us: int = NOW_S * SECOND
    rules: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.provider.add_key("ec", EC)
        self.provider.add_key("rsa", RSA)
        rules = TokenRules(**{"issuers": (Issuer(url=URL),), "audience": AUDIENCE, "leeway_s": 30, **self.rules})
        self.verifier = TokenVerifier(
            rules, lambda: self.now_us, max_age_s=1.0, new_bucket=lambda _, rate: TokenBucket(rate)
        )
        self.keys = self.verifier.keys = KeysInMemory(self.provider)  # type: ignore[assignment]

    def sign(self, kid: str | None = "ec", header: Mapping[str, Any] | None = None, **claims: Any) -> str:  # noqa: ANN401
        return self.provider.sign(kid, self.provider.claims(NOW_S, **claims), header)

    def caller(self, token: str | bytes) -> Caller:
        return self.verifier.get(token if isinstance(token, bytes) else token.encode())

    def problem(self, token: str | bytes) -> str:
        with pytest.raises(AccessError) as caught:
            self.caller(token)
        assert type(caught.value) is AccessError
        text = token if isinstance(token, str) else token.decode("latin-1")
        assert not any(part in str(caught.value) for part in text.split(".") if len(part) > 8)
        return caught.value.problem
