"""A real OpenID Connect provider over HTTPS: discovery, keys that rotate, and replies as no provider should give."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from joserfc import jws, jwt
from joserfc.jwk import ECKey, Key, RSAKey

from tests.servers.certificates import Authority

AUDIENCE = "https://scores.shop.example"
Reply = Callable[[BaseHTTPRequestHandler], None]


class _AnyHeader(jws.JWSRegistry):
    """Signs long and unknown headers, too."""

    max_header_length = 100_000

    def __init__(self, algorithms: list[str]) -> None:
        super().__init__(algorithms=algorithms, strict_check_header=False)


@dataclass
class Provider:
    """A provider; the tests change its keys and replies while it runs.

    Args:
        url: of the issuer.
        published: the keys in its key set.
        replies: by path, in place of the right reply.
        fetched: the paths that were fetched, in order.
        codes: of people who have signed in, with the query that sent them.
        person: claims of the person who signs in.
    """

    url: str
    keys: dict[str, Key] = field(default_factory=dict)
    published: list[str] = field(default_factory=list)
    replies: dict[str, Reply] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "ada", "scope": "operate"})

    def add_key(self, kid: str, key: Key | None = None) -> Key:
        """Create a key, and publish it beside the others."""
        self.keys[kid] = key or ECKey.generate_key("P-256", {"kid": kid}, private=True)
        self.published.append(kid)
        return self.keys[kid]

    def sign(self, kid: str | None, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
        """Return a token; None: of the first key, without its id in the header."""
        key = self.keys[kid or self.published[0]]
        algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
        full = {"alg": algorithm, **({} if kid is None else {"kid": kid}), **(header or {})}
        return jwt.encode(full, dict(claims), key, registry=_AnyHeader([full["alg"]]))

    def claims(self, now_s: float, **others: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
        """Return the claims of a good token; None removes one."""
        good = {"iss": self.url, "aud": AUDIENCE, "sub": "web", "exp": int(now_s) + 300, "scope": "predict"}
        return {name: value for name, value in {**good, **others}.items() if value is not None}

    def key_set(self) -> dict[str, Any]:
        """Return the published keys, without their private parts."""
        return {"keys": [{**self.keys[kid].as_dict(private=False), "kid": kid} for kid in self.published]}

    def document(self) -> dict[str, Any]:
        """Return the discovery document."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
        }

    def authorize(self, path: str) -> str:
        """Return where a person is sent who has signed in here and agrees."""
        query = dict(parse_qsl(urlsplit(path).query))
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def exchange(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Return the token of a code, once, to the client that proves with its verifier that it has begun."""
        query = self.codes.pop(form.get("code", ""), {})
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        same = [form.get(name) == query.get(name) for name in ("client_id", "redirect_uri")]
        if not all(same) or challenge != query.get("code_challenge"):
            return {"error": "invalid_grant"}
        claims = self.claims(time.time(), aud=query["client_id"], nonce=query["nonce"], **self.person)
        return {"id_token": self.sign("first", claims), "token_type": "Bearer"}


@contextmanager
def opened_provider(folder: Path) -> Iterator[Provider]:
    """Serve a provider with one key, ``first``; ``folder/ca.crt`` is the authority of its certificate."""
    provider = Provider(url="")

    class ProviderHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            provider.fetched.append(self.path)
            if (reply := provider.replies.get(self.path)) is not None:
                reply(self)
            elif self.path == "/.well-known/openid-configuration":
                send(self, 200, json.dumps(provider.document()).encode())
            elif self.path == "/keys":
                send(self, 200, json.dumps(provider.key_set()).encode())
            elif self.path.startswith("/authorize?"):
                send(self, 303, b"", Location=provider.authorize(self.path))
            else:
                send(self, 404, b"{}")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            reply = provider.exchange(dict(parse_qsl(body)))
            send(self, 400 if "error" in reply else 200, json.dumps(reply).encode())

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    certificate, key = Authority(folder).issue("localhost", dns=["localhost"])
    server = ThreadingHTTPServer(("127.0.0.1", 0), ProviderHandler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hang up
    provider.url = f"https://localhost:{server.server_address[1]}"
    provider.add_key("first")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield provider
    server.shutdown()
    server.server_close()
    thread.join(10)


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    """Send a reply."""
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Send a byte now and then, for a minute: never silent for long, and never done."""
    handler.send_response(200)
    handler.send_header("Content-Length", "600")
    handler.end_headers()
    for _ in range(600):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return
        time.sleep(0.1)


def flood(handler: BaseHTTPRequestHandler) -> None:
    """Send 100 MB."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    for _ in range(100):
        try:
            handler.wfile.write(b" " * 1_000_000)
        except OSError:
            return
