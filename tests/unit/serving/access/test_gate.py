"""Who may ask: keys, scopes, rates, and keys that change while the server runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoints
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from skewless.contract.errors import AccessError, DefinitionError, RateError, ScopeError, StoreError
from skewless.contract.settings import Settings
from skewless.infra.platform.access.api_keys import SECRET_CHARS, ApiKey, KeyStore, generate_secret, hash_secret
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.sqlite_database import SqliteDatabase
from skewless.serving.access.gate import Access, KeyAccess, OpenAccess, open_access
from skewless.serving.access.rates import TokenBucket
from skewless.serving.http.reply import http_status, retry_after

START_US = 1_000_000
EVERYWHERE = "0.0.0.0"  # noqa: S104 - no socket is opened


@dataclass
class Keyring:
    """The stored keys and the two clocks."""

    store: KeyStore
    seconds: float = 100.0
    now_us: int = START_US
    secrets: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, *scopes: str, **parts: Any) -> bytes:  # noqa: ANN401 - of an ApiKey
        secret = generate_secret(name).encode()
        self.store.add(
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
        return KeyAccess(
            self.store,
            lambda: self.now_us,
            clock=lambda: self.seconds,
            new_bucket=lambda _, rate: TokenBucket(rate * share),
        )


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(KeyStore(ProjectState(tmp_path)))


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
    assert keyring.access().allow([(b"host", b"x"), (name, before + secret)], "predict").name == "web"


def test_a_header_for_somebody_else_does_not_count(keyring: Keyring) -> None:
    secret, access = keyring.add("web"), keyring.access()
    gateway = (b"authorization", b"Basic dXNlcjpwYXNz")
    assert access.allow([gateway, (b"x-api-key", secret)], None).name == "web"
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
    assert [access.allow(bearer(secret), scope).name for scope in ("predict", "feedback", None)] == ["web"] * 3
    caller = access.allow(bearer(secret), None)
    for call in (lambda: access.allow(bearer(secret), "admin"), lambda: caller.require("admin")):
        with pytest.raises(ScopeError, match=r"'web': does not have the scope 'admin'.*--scope admin") as caught:
            call()
        assert http_status(caught.value) == 403


def test_a_key_that_expires_is_refused_from_that_moment_on(keyring: Keyring) -> None:
    secret = keyring.add("web", expires_us=START_US + 10)
    access = keyring.access()
    keyring.now_us = START_US + 9
    assert (access.allow(bearer(secret), None).name, access.has_valid_key()) == ("web", True)
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
    assert access.allow(bearer(free), "predict").name == "free"
    keyring.seconds += 3
    assert access.allow(bearer(slow), "predict").name == "slow"


def test_only_what_passes_is_counted(keyring: Keyring) -> None:
    secret = keyring.add("web", "predict", rate=1.0)
    access = keyring.access()
    for _ in range(5):
        with pytest.raises(ScopeError):
            access.allow(bearer(secret), "admin")
        with pytest.raises(AccessError, match="is unknown"):
            access.allow(bearer(secret[:-1] + b"!"), "predict")
    caller = access.allow(bearer(secret), "predict")
    for _ in range(5):
        caller.require("predict")
    assert caller.name == "web"
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


def test_keys_come_and_go_at_the_next_refresh(keyring: Keyring) -> None:
    old = keyring.add("old")
    access = keyring.access()
    new = keyring.add("new")
    keyring.store.revoke("old")
    assert access.allow(bearer(old), None).name == "old"
    with pytest.raises(AccessError, match="is unknown"):
        access.allow(bearer(new), None)
    access.refresh()
    assert access.allow(bearer(new), None).name == "new"
    with pytest.raises(AccessError, match="is unknown"):
        access.allow(bearer(old), None)


def test_a_request_never_reads_the_database(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = keyring.add("web")
    access = keyring.access()
    monkeypatch.setattr(SqliteDatabase, "execute", _away)
    keyring.seconds += 3_600
    caller = access.allow(bearer(secret), "predict")
    caller.require("predict")
    assert caller.name == "web"


def test_a_change_fills_no_bucket_but_a_new_rate_counts(keyring: Keyring) -> None:
    secret = keyring.add("web", rate=0.001)
    access = keyring.access()
    access.allow(bearer(secret), None)
    keyring.add("other")
    access.refresh()
    with pytest.raises(RateError):
        access.allow(bearer(secret), None)
    keyring.store.revoke("web")
    key = ApiKey(name="web", digest=hash_secret(secret), scopes=frozenset({"admin"}), rate=5.0, created_us=1)
    keyring.store.add(key)
    access.refresh()
    assert access.allow(bearer(secret), "admin").name == "web"


def test_while_the_database_is_away_the_last_keys_apply_and_that_is_logged_once(keyring: Keyring) -> None:
    secret = keyring.add("web")
    access = keyring.access()
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch, capture_logs() as logs:
            patch.setattr(SqliteDatabase, "execute", _away)
            for _ in range(3):
                access.refresh()
                assert access.allow(bearer(secret), None).name == "web"
        assert [(line["event"], line["log_level"]) for line in logs] == [("api_keys_unchanged", "error")]
        access.refresh()
    keyring.store.revoke("web")
    access.refresh()
    with pytest.raises(AccessError, match="is unknown"):
        access.allow(bearer(secret), None)


def test_corrupt_keys_leave_the_last_ones_and_are_an_error_at_the_start(keyring: Keyring, tmp_path: Path) -> None:
    secret = keyring.add("web")
    access, documents = keyring.access(), Documents(ProjectState(tmp_path).database, "api_keys")
    documents.put("project", {})
    with capture_logs() as logs:
        access.refresh()
    assert "API keys: are corrupt in the database" in logs[0]["error"]
    assert access.allow(bearer(secret), None).name == "web"
    with pytest.raises(StoreError, match="are corrupt"):
        keyring.access()
    documents.put("project", {"format": 1, "keys": []})
    access.refresh()
    with pytest.raises(AccessError, match="is unknown"):
        access.allow(bearer(secret), None)


def _away(*_: object) -> None:
    raise StoreError("database", "is unavailable", fix="start it")


def opened(keyring: Keyring, auth: str, host: str) -> Access:
    return open_access(Settings(auth=auth, host=host), keyring.store, lambda: keyring.now_us)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_nobody_needs_a_key_unless_it_is_wanted(keyring: Keyring, host: str) -> None:
    with capture_logs() as logs:
        assert [type(opened(keyring, auth, host)) for auth in ("auto", "off")] == [OpenAccess, OpenAccess]
    assert logs == []
    assert opened(keyring, "auto", host).allow([], "admin").name == "anyone"
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


def test_tokens_without_their_plugin_name_the_extra(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skewless.infra.platform.host.plugins._entry_points", lambda *_: EntryPoints())
    keyring.add("web")
    settings = Settings(auth="required", token_issuers=("https://id.shop.example",))
    says = r"'token_issuers': needs a package that is not installed\. Fix: pip install 'skewless\[oidc\]'"
    with pytest.raises(DefinitionError, match=says):
        open_access(settings, keyring.store, lambda: keyring.now_us)
