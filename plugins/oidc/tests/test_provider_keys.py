"""Keys of a provider: fetched over real HTTPS, bounded, kept while it is unavailable, dropped when they are too old."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey
from structlog.testing import capture_logs

from skewless_oidc import provider_keys
from skewless_oidc.provider_keys import (
    DISCOVERY,
    Issuer,
    ProviderError,
    ProviderKeys,
    fetch_keys,
    is_safe_url,
    parse_keys,
)
from tests.servers.identity_provider import Provider, drip, flood, opened_provider, send
from tests.worlds.waiting import until

HOUR_S = 3_600.0


@pytest.fixture(scope="module")
def running_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Provider, Path]]:
    folder = tmp_path_factory.mktemp("provider")
    with opened_provider(folder) as provider:
        yield provider, folder


@pytest.fixture
def provider(running_provider: tuple[Provider, Path], monkeypatch: pytest.MonkeyPatch) -> Provider:
    found, folder = running_provider
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.crt"))
    found.keys, found.published, found.replies, found.fetched = {}, [], {}, []
    found.add_key("first")
    return found


class MonotonicClock:
    """A monotonic clock that a test moves."""

    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def fetch(provider: Provider, **parts: str) -> list[str | None]:
    return [key.kid for key in asyncio.run(fetch_keys(Issuer(url=provider.url, **parts)))]


def test_keys_are_found_by_discovery_or_at_a_given_address(provider: Provider) -> None:
    provider.add_key("second")
    assert fetch(provider) == ["first", "second"]
    assert provider.fetched == [DISCOVERY, "/keys"]
    assert fetch(provider, keys_url=f"{provider.url}/keys") == ["first", "second"]
    assert provider.fetched[2:] == ["/keys"]


def test_a_provider_with_an_unknown_certificate_is_not_believed(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ProviderError, match=r"cannot be reached.*[Cc]ertificate"):
        fetch(provider)
    assert provider.fetched == []


def answer(status: int, body: bytes, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: send(handler, status, body, **headers)


@pytest.mark.parametrize(
    ("path", "reply", "says"),
    [
        (DISCOVERY, answer(500, b"{}"), "status 500"),
        (DISCOVERY, answer(200, b"<html>"), "did not answer with JSON"),
        (DISCOVERY, answer(200, b"[]"), "not answer with a JSON object"),
        (DISCOVERY, answer(200, b"\xff\xfe"), "did not answer with JSON"),
        (DISCOVERY, answer(200, b"[" * 500_000), "did not answer with JSON"),
        (DISCOVERY, answer(200, b'{"issuer": "https://evil.example", "jwks_uri": "https://x"}'), "another issuer"),
        (DISCOVERY, answer(302, b"", Location="https://evil.example/"), "status 302"),
        (DISCOVERY, flood, "more than 1048576 bytes"),
        ("/keys", answer(301, b"", Location="https://evil.example/"), "status 301"),
        ("/keys", answer(200, b'{"keys": []}'), "no usable key"),
        ("/keys", answer(200, b'{"keys": 7}'), "no list of at most 100 keys"),
        ("/keys", answer(200, json.dumps({"keys": [{}] * 101}).encode()), "no list of at most 100 keys"),
        ("/keys", answer(200, b"{}", **{"Content-Encoding": "gzip"}), "no list of at most 100 keys"),
        ("/keys", flood, "more than 1048576 bytes"),
        ("/keys", lambda handler: handler.connection.close(), "cannot be reached"),
    ],
)
def test_a_wrong_reply_is_an_error_that_says_why(provider: Provider, path: str, reply: Any, says: str) -> None:  # noqa: ANN401 - a function
    provider.replies[path] = reply
    with pytest.raises(ProviderError, match=says) as caught:
        fetch(provider)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "address", ["http://localhost:1/keys", "http://shop.example/keys", "file:///etc/passwd", 7, None]
)
def test_a_provider_behind_https_cannot_name_an_unsafe_address_of_keys(provider: Provider, address: object) -> None:
    document = {**provider.document(), "jwks_uri": address}
    provider.replies[DISCOVERY] = answer(200, json.dumps(document).encode())
    with pytest.raises(ProviderError, match="no https address of its keys"):
        fetch(provider)


def test_a_reply_without_end_takes_bounded_time(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_keys, "_FETCH_S", 0.5)
    provider.replies["/keys"] = drip
    begin = time.monotonic()
    with pytest.raises(ProviderError, match="did not answer in"):
        fetch(provider)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example",
        "https://",
        "ftp://localhost",
        "https://user:pass@shop.example",
        "https://x:port/",
        "",
        "//x",
    ],
)
def test_other_addresses_are_not_safe(url: str) -> None:
    assert not is_safe_url(url)


def public(key: Any, **parts: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON values
    return {**key.as_dict(private=False), **parts}


def test_only_public_keys_for_signatures_count() -> None:
    good, rsa = ECKey.generate_key("P-256"), RSAKey.generate_key(2048)
    weak = {"kty": "RSA", "n": "AQAB" * 16, "e": "AQAB", "kid": "weak"}
    skipped = [
        public(good, use="enc", kid="enc"),
        public(good, key_ops=["encrypt"], kid="ops"),
        {**OctKey.import_key("0" * 32).as_dict(private=True), "kid": "secret"},
        weak,
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "broken"},
        {"kty": "RSA", "kid": "empty"},
        {"kty": "later", "kid": "unknown"},
        {"kid": "nothing"},
        7,
        None,
    ]
    keys = parse_keys({"keys": [*skipped, public(good, kid="a"), {**rsa.as_dict(private=True), "kid": "b"}]})
    assert [key.kid for key in keys] == ["a", "b"]
    assert not any(key.is_private for key in keys)


def watched(provider: Provider, removed: list[int], clock: MonotonicClock, max_age_s: float = HOUR_S) -> ProviderKeys:
    issuers = [Issuer(url=provider.url)]
    return ProviderKeys(issuers, max_age_s=max_age_s, on_removed=lambda: removed.append(1), clock=clock)


def kids(keys: ProviderKeys, provider: Provider) -> list[str | None]:
    return [key.kid for key in keys.get(provider.url)]


def test_a_rotation_has_no_gap_and_a_removed_key_is_reported(provider: Provider) -> None:
    removed: list[int] = []
    clock = MonotonicClock()
    keys = watched(provider, removed, clock)
    steps = []
    for change in (lambda: None, lambda: provider.add_key("second"), lambda: provider.published.remove("first")):
        change()
        keys.fetch_due()
        steps.append((kids(keys, provider), len(removed)))
        clock.now += 301
    assert steps == [(["first"], 0), (["first", "second"], 0), (["second"], 1)]


def test_keys_stay_while_the_provider_is_away_and_are_dropped_at_their_greatest_age(provider: Provider) -> None:
    removed: list[int] = []
    clock = MonotonicClock()
    keys = watched(provider, removed, clock)
    keys.fetch_due()
    provider.replies[DISCOVERY] = answer(503, b"")
    waits = []
    with capture_logs() as logs:
        while clock.now < 1_000 + HOUR_S:
            clock.now += keys.fetch_due() or 1.0
            waits.append(kids(keys, provider))
        assert waits[-2] == ["first"]
        assert "status 503" in keys.problems()[provider.url]
        clock.now += 61
        keys.fetch_due()
    assert (kids(keys, provider), removed) == ([], [1])
    # Once about a minute, and logged once.
    assert len(provider.fetched) < 80
    assert [line["event"] for line in logs] == ["token_keys_unchanged", "token_keys_dropped", "token_keys_read"]
    provider.replies.clear()
    clock.now += 61
    keys.fetch_due()
    assert (kids(keys, provider), keys.problems()) == (["first"], {})


def test_unknown_keys_cause_few_fetches(provider: Provider) -> None:
    clock = MonotonicClock()
    keys = watched(provider, [], clock)
    keys.fetch_due()
    for _ in range(10_000):  # 60 seconds
        clock.now += 0.006
        keys.request_fetch(provider.url)
        keys.fetch_due()
    assert 2 * 6 <= len(provider.fetched) <= 2 * 7


def test_the_thread_fetches_at_once_and_when_it_is_asked(provider: Provider) -> None:
    clock = MonotonicClock()
    keys = watched(provider, [], clock)
    keys.start(wait_s=10)
    assert kids(keys, provider) == ["first"]
    provider.add_key("second")
    clock.now += 11
    assert keys.request_fetch(provider.url)
    until(lambda: kids(keys, provider) == ["first", "second"])
    keys.close()


def test_an_unknown_issuer_has_no_keys(provider: Provider) -> None:
    assert watched(provider, [], MonotonicClock()).get("https://evil.example") == ()


def test_a_defect_does_not_end_the_thread(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: Issuer) -> list[Any]:
        raise RecursionError("too deep")

    removed: list[int] = []
    clock = MonotonicClock()
    keys = watched(provider, removed, clock, max_age_s=100.0)
    keys.fetch_due()
    monkeypatch.setattr(provider_keys, "fetch_keys", fail)
    clock.now += 301
    keys.fetch_due()
    assert (kids(keys, provider), removed, keys.problems()) == ([], [1], {provider.url: "RecursionError('too deep')"})
