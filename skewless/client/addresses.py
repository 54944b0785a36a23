"""Where the servers are: base URLs, and the one of them that is in use."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from skewless.contract.errors import RequestError

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """A base URL in parts.

    Args:
        url: as it is shown, without a slash at the end.
        host: name or number to connect to.
        port: port to connect to.
        secure: whether TLS is spoken.
        authority: host and port as the ``Host`` header has them.
        prefix: path before that of every route; empty for most.
    """

    url: str
    host: str
    port: int
    secure: bool
    authority: str
    prefix: str


def parse_address(url: str) -> Address:
    """Return the parts of a base URL.

    Raises:
        RequestError: it is none. The URL is not repeated: it may hold a password.

    >>> parse_address("https://scores.example/v1/").port
    443
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _refused(f"cannot be read: {error}") from error
    if parts.scheme not in _PORTS or not host:
        raise _refused("does not begin with http:// or https:// and a host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise _refused("has a user, a query or a fragment")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise _refused("has a character that no URL has")
    return Address(
        url=f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/"),
        host=host,
        port=port or _PORTS[parts.scheme],
        secure=parts.scheme == "https",
        authority=parts.netloc,
        prefix=parts.path.rstrip("/"),
    )


def _refused(problem: str) -> RequestError:
    return RequestError(
        "base URL of the server", problem, fix="give one like http://127.0.0.1:8080; a key goes in key="
    )


class Addresses:
    """The addresses of one service in order; one is in use until it is left. For several threads."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._all = [parse_address(url) for url in urls]
        self._at = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def secure(self) -> bool:
        """Return whether TLS is spoken with any of them."""
        return any(address.secure for address in self._all)

    @property
    def current(self) -> Address:
        """Return the one in use."""
        return self._all[self._at]

    def leave(self, address: Address) -> None:
        """Go on to the next one, unless somebody else has left this one already."""
        with self._lock:
            if self.current is address:
                self._at = (self._at + 1) % len(self._all)
