"""The stored API keys: complete at any time, and without the secrets."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.errors import ConflictError, RequestError, StoreError
from skewless.infra.platform.access.api_keys import ApiKey, KeyStore, generate_secret, hash_secret
from skewless.infra.platform.storage.documents import Documents
from skewless.infra.platform.storage.project_state import ProjectState


def a_key(name: str, secret: str = "", **parts: Any) -> ApiKey:  # noqa: ANN401 - of an ApiKey
    digest = hash_secret(secret.encode())
    return ApiKey(**{"name": name, "digest": digest, "scopes": frozenset({"predict"}), "created_us": 5, **parts})


@pytest.fixture
def state(tmp_path: Path) -> ProjectState:
    return ProjectState(tmp_path / "state")


@pytest.fixture
def key_store(state: ProjectState) -> KeyStore:
    return KeyStore(state)


def test_a_new_project_has_no_keys(key_store: KeyStore, state: ProjectState) -> None:
    assert (key_store.read(), key_store.revision()) == ((), 0)
    assert not state.folder.exists()


def test_keys_come_back_as_they_were_in_their_order(key_store: KeyStore) -> None:
    added = (
        a_key("b", "1", scopes=frozenset({"predict", "admin"}), rate=0.5, expires_us=2**53 + 1),
        a_key("a", "2", created_us=2**53 + 1),
        a_key("c", models=frozenset({"fraud", "pricing"})),
        a_key("d", digest=None, certificate="uri:spiffe://shop/web"),
    )
    for key in added:
        key_store.add(key)
    assert key_store.read() == added
    key_store.revoke("b")
    assert key_store.read() == added[1:]


def test_it_does_not_hold_the_secret(key_store: KeyStore, state: ProjectState) -> None:
    secret = generate_secret("web")
    key_store.add(a_key("web", secret))
    text = json.dumps(Documents(state.database, "api_keys").list_all())
    assert secret.removeprefix("sk_web_") not in text
    assert hash_secret(secret.encode()).hex() in text


def test_a_refused_change_changes_nothing(key_store: KeyStore) -> None:
    key_store.add(a_key("web"))
    before = key_store.revision()
    with pytest.raises(ConflictError):
        key_store.add(a_key("web", rate=9.0))
    with pytest.raises(RequestError):
        key_store.revoke("shop")
    assert key_store.revision() == before


def test_every_change_has_another_revision(key_store: KeyStore) -> None:
    revisions = [key_store.revision()]
    for step in range(6):
        key_store.add(a_key("web")) if step % 2 == 0 else key_store.revoke("web")
        revisions.append(key_store.revision())
    assert revisions == sorted(set(revisions))


def test_of_many_who_add_at_once_nobody_is_lost(key_store: KeyStore, state: ProjectState) -> None:
    names = [f"k{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: KeyStore(state).add(a_key(name)), names))
    assert sorted(key.name for key in key_store.read()) == sorted(names)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(format=2),
        lambda body: body.pop("keys"),
        lambda body: body.update(keys=[3]),
        lambda body: body["keys"].append(body["keys"][0]),
        lambda body: body["keys"][0].pop("scopes"),
        lambda body: body["keys"][0].update(sha256="abcd"),
        lambda body: body["keys"][0].update(sha256="no hex"),
        lambda body: body["keys"][0].update(name=7),
        lambda body: body["keys"][0].update(scopes=["root"]),
        lambda body: body["keys"][0].update(rate="fast"),
        lambda body: body["keys"][0].update(expires_us="soon"),
    ],
)
def test_keys_that_were_not_written_so_are_refused(key_store: KeyStore, state: ProjectState, change: Any) -> None:  # noqa: ANN401 - a function
    key_store.add(a_key("web"))
    with Documents(state.database, "api_keys").edit("project", {}) as body:
        change(body)
    with pytest.raises(StoreError, match="API keys: are corrupt in the database"):
        key_store.read()


@pytest.mark.parametrize("body", [[], "x", 3, {}])
def test_another_value_is_refused(key_store: KeyStore, state: ProjectState, body: object) -> None:
    Documents(state.database, "api_keys").put("project", body)
    with pytest.raises(StoreError, match="are corrupt in the database"):
        key_store.read()
