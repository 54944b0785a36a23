"""Base URLs, and the one in use."""

from __future__ import annotations

import pytest

from skewless.client.attempts import Addresses, base_url
from skewless.contract.errors import RequestError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://h/", "http://h"),
        ("HTTPS://h/a/b/", "https://h/a/b"),
        ("http://[::1]:9", "http://[::1]:9"),
    ],
)
def test_a_base_url_has_no_slash_at_its_end(url: str, shown: str) -> None:
    assert base_url(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        *("h:80", "ftp://h", "http://", "http://h:x", "http://h:99999", "http://h:0", "http://[b:]", "http://h%zz"),
        *(
            "http://u:secret@h",
            "http://h?secret",
            "http://h#a",
            "http://h/a b",
            "http://h/\r\nx",
            "http://ü",
            "http://h\\",
        ),
    ],
)
def test_what_is_no_base_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(RequestError, match="base URL of the server") as caught:
        base_url(url)
    assert "secret" not in str(caught.value)


def test_an_address_is_left_once_and_the_first_follows_the_last() -> None:
    addresses = Addresses(["http://a", "http://b"])
    addresses.switch_from("http://a")
    addresses.switch_from("http://a")  # a thread that was slower
    assert addresses.current == "http://b"
    addresses.switch_from("http://b")
    assert addresses.current == "http://a"
