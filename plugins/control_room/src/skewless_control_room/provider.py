"""Sign-in at an OpenID Connect provider, by the authorization code flow with PKCE (RFC 7636)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson

from skewless.contract.errors import AccessError
from skewless_oidc.provider_keys import ProviderError, discovery_url, is_safe_url, read_json

_BYTES = 32
_SECONDS = 600.0
_MOST = 1_000


@dataclass(frozen=True, kw_only=True)
class ProviderAttempt:
    """A sign-in that has begun.

    Args:
        nonce: that the token must contain.
        verifier: secret of this attempt, which only the provider sees.
        back: path of the page that the person wanted.
        browser: random number in a cookie: another browser cannot finish the attempt.
    """

    nonce: str
    verifier: str
    back: str
    browser: str
    begun_s: float


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An OpenID Connect provider, at which this control room is a client.

    Args:
        issuer: its URL.
        client_id, client_secret: of the control room; without a secret it is a public client.
        redirect_url: URL of our ``/sign-in/callback``.
        scopes: that are requested.
    """

    issuer: str
    client_id: str
    client_secret: str | None
    redirect_url: str
    scopes: str = "openid"


class ProviderSignIn:
    """Sends people to the provider, and receives them with their token.

    Args:
        provider: see there.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._attempts: dict[str, ProviderAttempt] = {}

    async def begin(self, back: str) -> tuple[str, str]:
        """Return the URL of the provider's page, and the value of a cookie for ``finish``.

        Raises:
            AccessError: the provider is unavailable.
        """
        endpoint = (await self._document())["authorization_endpoint"]
        state, verifier = secrets.token_urlsafe(_BYTES), secrets.token_urlsafe(_BYTES)
        attempt = ProviderAttempt(
            nonce=secrets.token_urlsafe(_BYTES),
            verifier=verifier,
            back=back,
            browser=secrets.token_urlsafe(_BYTES),
            begun_s=time.monotonic(),
        )
        if len(self._attempts) >= _MOST:
            del self._attempts[next(iter(self._attempts))]
        self._attempts[state] = attempt
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._provider.client_id,
            "redirect_uri": self._provider.redirect_url,
            "scope": self._provider.scopes,
            "state": state,
            "nonce": attempt.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}", attempt.browser

    async def finish(self, query: Mapping[str, str], browser: str) -> tuple[bytes, str]:
        """Return the identity token of a person who comes back, which is not verified yet, and the page to show.

        Args:
            query: of the callback.
            browser: the cookie of ``begin``.

        Raises:
            AccessError: the attempt is unknown or too old, or the provider refuses.
        """
        attempt = self._attempts.pop(query.get("state", ""), None)
        is_known = attempt is not None and hmac.compare_digest(attempt.browser.encode(), browser.encode())
        if attempt is None or not is_known or time.monotonic() - attempt.begun_s > _SECONDS:
            raise _error("does not belong to an attempt of this browser, or came too late")
        if "code" not in query:
            raise _error(f"was refused by the provider: {query.get('error', 'no code')}")
        token = await self._exchange(query["code"], attempt)
        if not hmac.compare_digest(str(_claims(token).get("nonce")).encode(), attempt.nonce.encode()):
            raise _error("has a token of another attempt")
        return token, attempt.back

    async def _exchange(self, code: str, attempt: ProviderAttempt) -> bytes:
        provider = self._provider
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": provider.redirect_url,
            "client_id": provider.client_id,
            "code_verifier": attempt.verifier,
        }
        endpoint = (await self._document())["token_endpoint"]
        auth = None if provider.client_secret is None else aiohttp.BasicAuth(provider.client_id, provider.client_secret)
        body = await self._ask("POST", endpoint, data=form, auth=auth)
        token = body.get("id_token")
        if not isinstance(token, str):
            raise _error("has no identity token in the reply of the provider")
        return token.encode()

    async def _document(self) -> Mapping[str, str]:
        body = await self._ask("GET", discovery_url(self._provider.issuer))
        if body.get("issuer") != self._provider.issuer:
            raise _error("met a provider with another name than the setting `token_issuers`")
        for name in ("authorization_endpoint", "token_endpoint"):
            if not is_safe_url(str(body.get(name))):
                raise _error(f"found no https address of {name} at the provider")
        return body

    async def _ask(self, method: str, url: str, **options: Any) -> Mapping[str, Any]:  # noqa: ANN401 - of aiohttp
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
        timeout = aiohttp.ClientTimeout(total=10)
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                return await read_json(session.request(method, url, allow_redirects=False, **options), url)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, ProviderError) as error:
            raise _error(f"cannot reach the provider: {type(error).__name__}") from error


def _claims(token: bytes) -> Mapping[str, Any]:
    """Return the claims of a token; the gate verifies it."""
    try:
        part = token.split(b".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    except (ValueError, IndexError) as error:
        raise _error("has a malformed token") from error
    return claims if isinstance(claims, dict) else {}


def _error(problem: str) -> AccessError:
    return AccessError("sign-in", problem, fix="sign in again; the log of `skewless ui` has more")
