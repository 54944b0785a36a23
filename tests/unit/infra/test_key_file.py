"""The file of API keys: for its owner's eyes, whole at any moment, and never with a key in it."""

from __future__ import annotations

import itertools
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from skewless.contract.errors import ConflictError, PlaceError, RequestError
from skewless.infra.access.api_keys import ApiKey, generate_secret, hash_secret
from skewless.infra.access.key_file import KeyFile
from skewless.infra.storage.project_state import ProjectState


def a_key(name: str, secret: str = "", **parts: Any) -> ApiKey:  # noqa: ANN401 - of an ApiKey
    digest = hash_secret(secret.encode())
    return ApiKey(**{"name": name, "digest": digest, "scopes": frozenset({"predict"}), "created_us": 5, **parts})


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(ProjectState(tmp_path / "state"))


def test_without_a_file_there_are_no_keys(file: KeyFile) -> None:
    assert (file.read(), file.stamp()) == ((), None)


def test_keys_come_back_as_they_were_in_their_order(file: KeyFile) -> None:
    keys = (
        a_key("b", "1", scopes=frozenset({"predict", "admin"}), rate=0.5, expires_us=2**53 + 1),
        a_key("a", "2", created_us=2**53 + 1),
    )
    for key in keys:
        file.add(key)
    assert file.read() == keys
    file.revoke("b")
    assert file.read() == keys[1:]


def test_only_the_owner_may_read_it_whatever_the_umask_says(file: KeyFile) -> None:
    before = os.umask(0)
    try:
        file.add(a_key("web"))
        file.add(a_key("shop"))
    finally:
        os.umask(before)
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_it_does_not_hold_the_key(file: KeyFile) -> None:
    secret = generate_secret("web")
    file.add(a_key("web", secret))
    text = file.path.read_text()
    assert secret.removeprefix("sk_web_") not in text
    assert hash_secret(secret.encode()).hex() in text


def test_a_refused_change_changes_nothing(file: KeyFile) -> None:
    file.add(a_key("web"))
    before = file.stamp()
    with pytest.raises(ConflictError):
        file.add(a_key("web", rate=9.0))
    with pytest.raises(RequestError):
        file.revoke("shop")
    assert file.stamp() == before


def test_every_change_has_another_stamp_and_leaves_no_other_file(file: KeyFile) -> None:
    stamps = [file.stamp()]
    for step in range(6):
        file.add(a_key("web")) if step % 2 == 0 else file.revoke("web")
        stamps.append(file.stamp())
    file.path.chmod(0o400)
    stamps.append(file.stamp())
    assert all(one != other for one, other in itertools.pairwise(stamps))
    assert sorted(path.name for path in file.path.parent.iterdir()) == ["api_keys.json", "api_keys.lock"]


def test_of_many_who_add_at_once_nobody_is_lost(file: KeyFile) -> None:
    names = [f"k{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: KeyFile(ProjectState(file.path.parent)).add(a_key(name)), names))
    assert sorted(key.name for key in file.read()) == sorted(names)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(format=2),
        lambda body: body.pop("keys"),
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
def test_a_file_that_was_not_written_so_is_refused(file: KeyFile, change: Any) -> None:  # noqa: ANN401 - a function
    file.add(a_key("web"))
    body = json.loads(file.path.read_text())
    change(body)
    file.path.write_text(json.dumps(body))
    with pytest.raises(PlaceError, match=r"api_keys\.json: does not contain API keys"):
        file.read()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 1, "keys": [3]}'])
def test_a_torn_file_is_refused(file: KeyFile, data: bytes) -> None:
    file.path.parent.mkdir()
    file.path.write_bytes(data)
    with pytest.raises(PlaceError, match="does not contain API keys"):
        file.read()


def test_what_cannot_be_read_says_why(file: KeyFile) -> None:
    file.path.mkdir(parents=True)
    with pytest.raises(PlaceError, match="cannot be read: Is a directory"):
        file.read()
