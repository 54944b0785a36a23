"""Base URLs, and the one in use."""

from __future__ import annotations

import pytest

from skewless.client.addresses import Address, Addresses, parse_address
from skewless.contract.errors import RequestError


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://127.0.0.1:8080", ("127.0.0.1", 8080, False, "127.0.0.1:8080", "")),
        ("http://h/", ("h", 80, False, "h", "")),
        ("https://h/a/b/", ("h", 443, True, "h", "/a/b")),
        ("http://[::1]:9", ("::1", 9, False, "[::1]:9", "")),
    ],
)
def test_a_url_has_parts(url: str, parts: tuple[str, int, bool, str, str]) -> None:
    assert parse_address(url) == Address(url.rstrip("/"), *parts)


@pytest.mark.parametrize(
    "url",
    [
        *("h:80", "ftp://h", "http://", "http://h:x", "http://h:99999"),
        *("http://u:secret@h", "http://h?secret", "http://h#a", "http://h/a b", "http://h/\r\nx", "http://ü"),
    ],
)
def test_what_is_no_base_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(RequestError, match="base URL of the server") as caught:
        parse_address(url)
    assert "secret" not in str(caught.value)


def test_an_address_is_left_once_and_the_first_follows_the_last() -> None:
    addresses = Addresses(["http://a", "http://b"])
    first = addresses.current
    addresses.leave(first)
    addresses.leave(first)  # a thread that was slower
    assert addresses.current.host == "b"
    addresses.leave(addresses.current)
    assert addresses.current is first
