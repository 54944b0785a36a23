"""API keys: what a key looks like, what is remembered of it, which are refused."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest

from skewless.contract.errors import ConflictError, DefinitionError, RequestError
from skewless.infra.platform.access.api_keys import (
    SCOPES,
    SECRET_CHARS,
    ApiKey,
    add_key,
    generate_secret,
    hash_secret,
    key_prefix,
    remove_key,
)


def a_key(**parts: Any) -> ApiKey:  # noqa: ANN401 - of an ApiKey
    given = {"name": "web", "digest": bytes(32), "scopes": frozenset({"predict"}), "created_us": 1_000}
    return ApiKey(**{**given, **parts})


def test_a_key_is_its_prefix_and_256_random_bits() -> None:
    secrets = {generate_secret("web-1") for _ in range(200)}
    assert len(secrets) == 200
    for secret in secrets:
        prefix, bits = secret[:-SECRET_CHARS], secret[-SECRET_CHARS:]
        assert (prefix.encode(), bits[0]) == (key_prefix("web-1"), "_")
        assert len(base64.urlsafe_b64decode(f"{bits[1:]}=")) == 32


def test_what_is_remembered_is_the_sha_256_of_the_whole_key() -> None:
    secret = generate_secret("web").encode()
    assert hash_secret(secret) == hashlib.new("sha256", secret).digest()


@pytest.mark.parametrize("name", ["a", "7", "web", "a-b-9", "x" * 40])
def test_a_name_may_stand_in_a_key(name: str) -> None:
    assert a_key(name=name).name == name


@pytest.mark.parametrize("name", ["", "Web", "a_b", "-a", "a-", "a b", "é", "x" * 41, "a\n", "a/b"])
def test_a_name_that_a_key_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="an invalid name"):
        a_key(name=name)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"scopes": frozenset()}, "unknown scope.*use some of predict, as_of, feedback, view, operate, admin"),
        ({"scopes": frozenset({"predict", "root"})}, "unknown scope.*root"),
        ({"models": frozenset()}, "invalid model"),
        ({"models": frozenset({"fraud", "../fraud"})}, "invalid model"),
        ({"digest": None}, "both a secret and a certificate, or neither"),
        ({"certificate": "dns:a"}, "both a secret and a certificate, or neither"),
        *(
            ({"digest": None, "certificate": name}, "invalid certificate name")
            for name in ("", "dns:", "cn:a", "a", "dns: a", "uri:a\n", "subject:\u00e9", f"uri:{'a' * 600}")
        ),
        ({"rate": 0.0}, "invalid rate"),
        ({"rate": -1.0}, "invalid rate"),
        ({"rate": float("nan")}, "invalid rate"),
        ({"rate": float("inf")}, "invalid rate"),
        ({"expires_us": 1_000}, "expires before its creation"),
    ],
)
def test_a_key_that_cannot_be_right_is_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        a_key(**parts)


def test_a_key_is_valid_until_it_expires() -> None:
    key = a_key(expires_us=2_000)
    assert [key.is_valid_at(now) for now in (1_999, 2_000)] == [True, False]
    assert a_key().is_valid_at(2**62)


def test_people_see_everything_but_the_hash() -> None:
    shown = a_key(scopes=frozenset(SCOPES), rate=2.5, created_us=0, expires_us=1_000_000).as_dict()
    assert shown == {
        "name": "web",
        "scopes": ["predict", "as_of", "feedback", "view", "operate", "admin"],
        "models": None,
        "certificate": None,
        "rate": 2.5,
        "created": "1970-01-01T00:00:00+00:00",
        "expires": "1970-01-01T00:00:01+00:00",
    }


def test_names_are_taken_once_and_found_again() -> None:
    one, two = a_key(name="one"), a_key(name="two")
    both = add_key(add_key((), one), two)
    assert both == (one, two)
    assert remove_key(both, "one") == (two,)
    with pytest.raises(ConflictError, match="'two': exists"):
        add_key(both, a_key(name="two", rate=1.0))
    shown = a_key(name="three", digest=None, certificate="dns:a")
    with pytest.raises(ConflictError, match="has the certificate of 'three'"):
        add_key((shown,), a_key(name="four", digest=None, certificate="dns:a"))
    with pytest.raises(RequestError, match=r"is unknown \(got 'three'\).*one, two"):
        remove_key(both, "three")
