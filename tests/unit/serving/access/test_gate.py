"""Who may ask: keys, scopes, rates, and a file that changes while the server runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from skewless.contract.errors import AccessError, DefinitionError, PlaceError, RateError, ScopeError
from skewless.contract.settings import Settings
from skewless.infra.access.api_keys import SECRET_CHARS, ApiKey, generate_secret, hash_secret
from skewless.infra.access.key_file import KeyFile
from skewless.infra.storage.project_state import ProjectState
from skewless.serving.access.gate import Access, KeyAccess, OpenAccess, open_access
from skewless.serving.http.reply import http_status, retry_after

START_US = 1_000_000
EVERYWHERE = "0.0.0.0"  # noqa: S104 - no socket is opened


@dataclass
class Keyring:
    """A file of keys and the two clocks."""

    file: KeyFile
    seconds: float = 100.0
    now_us: int = START_US
    secrets: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, *scopes: str, **parts: Any) -> bytes:  # noqa: ANN401 - of an ApiKey
        secret = generate_secret(name).encode()
        self.file.add(
            ApiKey(
                name=name,
                digest=hash_secret(secret),
                scopes=frozenset(scopes or ("predict",)),
                created_us=START_US,
                **parts,
            )
        )
        return secret

    def access(self, share: float = 1.0) -> KeyAccess:
        return KeyAccess(self.file, lambda: self.now_us, clock=lambda: self.seconds, share=share)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(KeyFile(ProjectState(tmp_path)))


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


def bearer(secret: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"authorization", b"Bearer " + secret), (b"accept", b"*/*")]


def refusal(call: Callable[[], object]) -> tuple[int, str, dict[str, str]]:
    """Return status, sentence and headers of a call that must be refused."""
    with pytest.raises(AccessError) as caught:
        call()
    return http_status(caught.value), caught.value.sentence(), retry_after(caught.value)


@pytest.mark.parametrize(
    ("name", "before"),
    [
        (b"authorization", b"Bearer "),
        (b"authorization", b"bearer "),
        (b"authorization", b"BEARER "),
        (b"x-api-key", b""),
    ],
)
def test_a_key_says_who_asks_in_either_header(keyring: Keyring, name: bytes, before: bytes) -> None:
    keyring.add("shop")
    secret = keyring.add("web")
    assert keyring.access().allow([(b"host", b"x"), (name, before + secret)], "predict") == "web"


def test_a_header_for_somebody_else_does_not_count(keyring: Keyring) -> None:
    secret, access = keyring.add("web"), keyring.access()
    gateway = (b"authorization", b"Basic dXNlcjpwYXNz")
    assert access.allow([gateway, (b"x-api-key", secret)], None) == "web"
    assert refusal(lambda: access.allow([gateway], None))[:1] == (401,)


def test_without_a_key_it_is_said_how_to_send_one(keyring: Keyring) -> None:
    keyring.add("web")
    status, sentence, headers = refusal(lambda: keyring.access().allow([(b"host", b"x")], "predict"))
    assert (status, headers) == (401, {"WWW-Authenticate": "Bearer"})
    assert sentence.startswith("API key: is missing. Fix: send a valid key in the header `Authorization: Bearer`")


@pytest.mark.parametrize(
    "change",
    [
        lambda secret: secret[:-1] + (b"A" if secret[-1:] != b"A" else b"B"),
        lambda secret: secret + b"A",
        lambda secret: secret[:-1],
        lambda secret: secret + b" ",
        lambda secret: secret.upper(),
        lambda secret: secret.replace(b"sk_web", b"sk_shop"),
        lambda secret: secret.replace(b"sk_web", b"sk_nobody"),
        lambda secret: secret[-SECRET_CHARS:],
        lambda secret: hash_secret(secret).hex().encode(),
        lambda secret: bytes(len(secret)),
        lambda _: b"",
        lambda _: b"sk_web",
        lambda _: b"sk_web_",
        lambda _: b"\xff" * 60_000,
    ],
)
def test_any_other_key_is_unknown_and_is_not_repeated(keyring: Keyring, change: Callable[[bytes], bytes]) -> None:
    keyring.add("shop")
    secret = keyring.add("web")
    wrong = change(secret)
    status, sentence, headers = refusal(lambda: keyring.access().allow(bearer(wrong), "predict"))
    assert (status, headers) == (401, {"WWW-Authenticate": "Bearer"})
    assert sentence.startswith("API key: is unknown. Fix:")
    assert secret[-SECRET_CHARS:-1].decode() not in sentence


def test_a_known_name_and_an_unknown_one_are_refused_alike(keyring: Keyring) -> None:
    keyring.add("web")
    access = keyring.access()
    known, unknown = bearer(generate_secret("web").encode()), bearer(generate_secret("nobody").encode())
    assert refusal(lambda: access.allow(known, None)) == refusal(lambda: access.allow(unknown, None))


def test_a_scope_that_is_missing_is_named(keyring: Keyring) -> None:
    secret = keyring.add("web", "predict", "feedback")
    access = keyring.access()
    assert [access.allow(bearer(secret), scope) for scope in ("predict", "feedback", None)] == ["web"] * 3
    for call in (access.allow, access.check):
        with pytest.raises(ScopeError, match=r"'web': does not have the scope 'admin'.*--scope admin") as caught:
            call(bearer(secret), "admin")
        assert http_status(caught.value) == 403


def test_a_key_that_expires_is_refused_from_that_moment_on(keyring: Keyring) -> None:
    secret = keyring.add("web", expires_us=START_US + 10)
    access = keyring.access()
    keyring.now_us = START_US + 9
    assert (access.allow(bearer(secret), None), access.has_valid_key()) == ("web", True)
    keyring.now_us = START_US + 10
    assert refusal(lambda: access.allow(bearer(secret), None))[1].startswith("API key: has expired")
    assert not access.has_valid_key()


def test_who_asks_too_often_is_told_when_to_come_back(keyring: Keyring) -> None:
    slow, free = keyring.add("slow", rate=0.25), keyring.add("free")
    access = keyring.access()
    access.allow(bearer(slow), "predict")
    keyring.seconds += 1.5
    with pytest.raises(RateError, match=r"'slow': has sent more than 0\.25 requests per second") as caught:
        access.allow(bearer(slow), "predict")
    assert (http_status(caught.value), retry_after(caught.value)) == (429, {"Retry-After": "3"})
    assert access.allow(bearer(free), "predict") == "free"
    keyring.seconds += 3
    assert access.allow(bearer(slow), "predict") == "slow"


def test_only_what_passes_is_counted(keyring: Keyring) -> None:
    secret = keyring.add("web", "predict", rate=1.0)
    access = keyring.access()
    for _ in range(5):
        with pytest.raises(ScopeError):
            access.allow(bearer(secret), "admin")
        with pytest.raises(AccessError, match="is unknown"):
            access.allow(bearer(secret[:-1] + b"!"), "predict")
        access.check(bearer(secret), "predict")
    assert access.allow(bearer(secret), "predict") == "web"
    with pytest.raises(RateError):
        access.allow(bearer(secret), "predict")


def test_a_worker_gives_its_share_of_a_rate(keyring: Keyring) -> None:
    secret = keyring.add("web", rate=40.0)
    passed = 0
    workers = [keyring.access(share=1 / 4) for _ in range(4)]
    for worker in workers:
        for _ in range(50):
            try:
                worker.allow(bearer(secret), None)
            except RateError:
                continue
            passed += 1
    assert passed == 40


def test_keys_come_and_go_while_it_runs_but_the_file_is_looked_at_once_a_second(keyring: Keyring) -> None:
    old = keyring.add("old")
    access = keyring.access()
    keyring.seconds += 5
    assert access.allow(bearer(old), None) == "old"  # looked now
    new = keyring.add("new")
    keyring.file.revoke("old")
    keyring.seconds += 0.99
    assert access.allow(bearer(old), None) == "old"
    with pytest.raises(AccessError, match="is unknown"):
        access.allow(bearer(new), None)
    keyring.seconds += 0.02
    assert access.allow(bearer(new), None) == "new"
    with pytest.raises(AccessError, match="is unknown"):
        access.allow(bearer(old), None)


def test_a_change_of_the_file_fills_no_bucket_but_a_new_rate_counts(keyring: Keyring) -> None:
    secret = keyring.add("web", rate=0.001)
    access = keyring.access()
    access.allow(bearer(secret), None)
    keyring.add("other")
    keyring.seconds += 2
    with pytest.raises(RateError):
        access.allow(bearer(secret), None)
    keyring.file.revoke("web")
    key = ApiKey(name="web", digest=hash_secret(secret), scopes=frozenset({"admin"}), rate=5.0, created_us=1)
    keyring.file.add(key)
    keyring.seconds += 2
    assert access.allow(bearer(secret), "admin") == "web"


def test_a_broken_file_leaves_the_keys_as_they_were_and_is_logged_once(keyring: Keyring) -> None:
    secret = keyring.add("web")
    access, whole = keyring.access(), keyring.file.path.read_bytes()
    keyring.file.path.write_bytes(b"{")
    with capture_logs() as logs:
        for _ in range(3):
            keyring.seconds += 2
            assert access.allow(bearer(secret), None) == "web"
    assert [(line["event"], line["log_level"]) for line in logs] == [("api_keys_unchanged", "error")]
    assert "does not contain API keys" in logs[0]["error"]
    body = json.loads(whole)
    body["keys"] = []
    keyring.file.path.write_text(json.dumps(body))
    keyring.seconds += 2
    with pytest.raises(AccessError, match="is unknown"):
        access.allow(bearer(secret), None)


def test_a_file_that_is_gone_leaves_no_key(keyring: Keyring) -> None:
    secret = keyring.add("web")
    access = keyring.access()
    keyring.file.path.unlink()
    keyring.seconds += 2
    with pytest.raises(AccessError, match="is unknown"):
        access.allow(bearer(secret), None)


def test_a_broken_file_at_the_start_is_an_error(keyring: Keyring) -> None:
    keyring.file.path.write_bytes(b"{")
    with pytest.raises(PlaceError, match="does not contain API keys"):
        keyring.access()


def opened(keyring: Keyring, auth: str, host: str) -> Access:
    return open_access(Settings(auth=auth), host, keyring.file, lambda: keyring.now_us)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_nobody_needs_a_key_unless_it_is_wanted(keyring: Keyring, host: str) -> None:
    with capture_logs() as logs:
        assert [type(opened(keyring, auth, host)) for auth in ("auto", "off")] == [OpenAccess, OpenAccess]
    assert logs == []
    assert opened(keyring, "auto", host).allow([], "admin") == "anyone"
    keyring.add("web")
    assert isinstance(opened(keyring, "required", host), KeyAccess)


@pytest.mark.parametrize("host", [EVERYWHERE, "::", "10.1.2.3", "example.org"])
def test_beyond_loopback_a_server_without_a_valid_key_does_not_start(keyring: Keyring, host: str) -> None:
    with pytest.raises(DefinitionError, match=r"setting 'host': requires API keys.*skewless keys add"):
        opened(keyring, "auto", host)
    keyring.add("web", expires_us=START_US + 1)
    keyring.now_us = START_US + 1
    with pytest.raises(DefinitionError, match=r"setting 'auth': requires API keys.*'required'"):
        opened(keyring, "required", host)
    keyring.add("shop")
    assert isinstance(opened(keyring, "auto", host), KeyAccess)


def test_beyond_loopback_off_is_a_warning(keyring: Keyring) -> None:
    with capture_logs() as logs:
        assert isinstance(opened(keyring, "off", EVERYWHERE), OpenAccess)
    assert [(line["event"], line["log_level"], line["host"]) for line in logs] == [
        ("auth_is_off", "warning", EVERYWHERE)
    ]
