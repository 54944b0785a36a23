"""Base URLs of the servers, and the URL in use."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from skewless.contract.errors import RequestError

# Stricter than ``urlsplit``, so that every HTTP library accepts it.
_BASE_URL = re.compile(
    r"https?://(\[[0-9a-f:.]+(%[0-9a-z]+)?\]|[a-z0-9_.-]+)(:[0-9]+)?(/[a-z0-9_.~!$&'()*+,;=:@%-]*)*",
    re.ASCII | re.IGNORECASE,
)


def base_url(url: str) -> str:
    """Return a base URL without a slash at its end.

    Raises:
        RequestError: the URL is invalid. The error does not contain the URL, which may have a password.

    >>> base_url("https://scores.example/v1/")
    'https://scores.example/v1'
    """
    try:
        parts = urlsplit(url)
        is_valid = parts.port != 0 and _BASE_URL.fullmatch(url)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise RequestError(
            "base URL of the server",
            "is not a URL of http:// or https://, host, port and path",
            fix="give a URL like http://127.0.0.1:8080, and a key as key=",
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")


class Addresses:
    """Base URLs of one service, in order, one of which is in use. For several threads."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = tuple(map(base_url, urls))
        self._index = 0
        self._lock = threading.Lock()

    @property
    def current(self) -> str:
        """Return the URL in use."""
        return self.urls[self._index]

    def switch_from(self, url: str) -> None:
        """Switch to the next URL, unless another thread has already switched from this one."""
        with self._lock:
            if self.current == url:
                self._index = (self._index + 1) % len(self.urls)
