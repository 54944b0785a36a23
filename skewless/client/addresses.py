"""Where the servers are: base URLs, and the one of them that is in use."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from skewless.contract.errors import RequestError

# Stricter than ``urlsplit``, so that every HTTP library takes it.
_BASE_URL = re.compile(
    r"https?://(\[[0-9a-f:.]+(%[0-9a-z]+)?\]|[a-z0-9_.-]+)(:[0-9]+)?(/[a-z0-9_.~!$&'()*+,;=:@%-]*)*",
    re.ASCII | re.IGNORECASE,
)


def base_url(url: str) -> str:
    """Return a base URL as it is shown and used: without a slash at its end.

    Raises:
        RequestError: it cannot be one. The URL is not repeated: it may hold a password.

    >>> base_url("https://scores.example/v1/")
    'https://scores.example/v1'
    """
    try:
        parts = urlsplit(url)
        good = parts.port != 0 and _BASE_URL.fullmatch(url)
    except ValueError:
        good = False
    if not good:
        raise RequestError(
            "base URL of the server",
            "is not http:// or https://, a host, a port and a path",
            fix="give one like http://127.0.0.1:8080; a key goes in key=",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


class Addresses:
    """The base URLs of one service in order; one is in use until it is left. For several threads."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = tuple(map(base_url, urls))
        self._at = 0
        self._lock = threading.Lock()

    @property
    def current(self) -> str:
        """Return the one in use."""
        return self.urls[self._at]

    def leave(self, url: str) -> None:
        """Go on to the next one, unless somebody else has left this one already."""
        with self._lock:
            if self.current == url:
                self._at = (self._at + 1) % len(self.urls)
