"""A real server with tokens of a real provider over HTTPS: rotation, removal, absence, and no token in any log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.servers.identity_provider import AUDIENCE, Provider, opened_provider, send
from tests.servers.prediction import PredictionServer
from tests.worlds.command_line import done
from tests.worlds.trained import MODEL, ask, opened_copy
from tests.worlds.waiting import until


@dataclass(frozen=True)
class TokenServer:
    """A server that requires a key or a token, and the provider that it trusts."""

    server: PredictionServer
    provider: Provider
    key: str
    now_s: float

    def ask(self, credential: str, method: str = "POST", path: str = "/predict") -> tuple[int, Any]:
        body = json.dumps({"model": MODEL, "rows": ask(1)}) if method == "POST" else None
        with closing(HTTPConnection(urlsplit(self.server.url).netloc, timeout=30)) as connection:
            connection.request(method, path, body, {"Authorization": f"Bearer {credential}"})
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())

    def sign(self, kid: str = "first", **claims: Any) -> str:  # noqa: ANN401 - JSON values
        return self.provider.sign(kid, self.provider.claims(self.now_s, **claims))


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Provider, Path]]:
    """A provider that answers with an error, and its authority."""
    folder = tmp_path_factory.mktemp("provider")
    with opened_provider(folder) as provider:
        provider.replies["/keys"] = lambda handler: send(handler, 503, b"")
        yield provider, folder / "ca.crt"


def settings_of(provider: Provider, authority: Path) -> dict[str, str]:
    return {
        "SKEWLESS_AUTH": "required",
        "SKEWLESS_PORT": "0",
        "SKEWLESS_TOKEN_ISSUERS": json.dumps([provider.url]),
        "SKEWLESS_TOKEN_AUDIENCE": AUDIENCE,
        "SKEWLESS_TOKEN_SCOPE_NAMES": '{"predict": "predict", "ml-admin": "admin"}',
        "SKEWLESS_TOKEN_MODEL_CLAIM": "models",
        "SKEWLESS_TOKEN_RATE": "50",
        "SKEWLESS_RATE_LIMIT": "redis",
        "SSL_CERT_FILE": str(authority),
    }


def test_a_server_lives_with_its_provider(away: tuple[Provider, Path], trained: Path, tmp_path: Path) -> None:
    provider, authority = away
    with opened_copy(trained, tmp_path / "p") as place:
        key = done("keys", "add", "web", "--model", MODEL, "--repo", place.repo)["key"]
        clock = f"file:{place.repo}/.skewless/clock"
        server = PredictionServer.start(place.repo, SKEWLESS_CLOCK=clock, **settings_of(provider, authority))
        with server.process:
            try:
                sent = live_through(TokenServer(server, provider, key, place.now_us() / 1e6))
                logged = end(server)
            finally:
                server.process.kill()
    for each in sent:
        assert not any(part in logged for part in each.split(".")[1:] or [each.rpartition("_")[2]])
    lines = [line for line in logged.splitlines() if "admin_request" in line]
    assert len(lines) == 1
    assert "token 'boss'" in lines[0]
    assert "token_keys_unchanged" in logged
    assert "status 503" in logged


def live_through(place: TokenServer) -> list[str]:
    """Return all keys and tokens that were sent."""
    provider, key = place.provider, place.key
    token, boss = place.sign(models=["*"]), place.sign(models=["*"], sub="boss", scope="ml-admin")
    sent = [token, boss]

    # The server has started without the provider: keys work, tokens do not yet, and health says why.
    assert place.ask(key)[0] == 200
    status, body = place.ask(token)
    assert (status, "keys of its issuer are unavailable" in body["error"]["problem"]) == (401, True)
    health = place.ask(key, "GET", "/health/ready")[1]
    assert health["ready"]
    assert health["details"] == {f"tokens of {provider.url}": "the keys cannot be fetched; see the log"}

    # The provider comes back. Scopes and models are those of the claims.
    provider.replies.clear()
    until(lambda: place.ask(token)[0] == 200)
    assert place.ask(key, "GET", "/health/ready")[1]["details"] == {}
    other = place.sign(models=["pricing"])
    assert [place.ask(each)[0] for each in (boss, other, place.sign(aud="x", models=["*"]))] == [403, 403, 401]
    assert place.ask(boss, "POST", "/models/refresh")[0] == 200
    assert place.ask(token, "POST", "/models/refresh")[0] == 403

    # A new key replaces the first one, as if that was stolen: the first new token is refused, and starts a fetch. The
    # remembered token of the old key ends with the same fetch.
    assert place.ask(token)[0] == 200
    provider.add_key("second")
    provider.published.remove("first")
    new = place.sign("second", models=["*"])
    until(lambda: place.ask(new)[0] == 200)
    assert place.ask(token)[0] == 401
    assert place.ask(key)[0] == 200
    return [*sent, other, new, key]


def end(server: PredictionServer) -> str:
    """Stop the server, and return what it has logged."""
    server.process.terminate()
    _, logged = server.process.communicate(timeout=30)
    assert server.process.returncode == 0
    assert "Traceback" not in logged, logged
    return logged
