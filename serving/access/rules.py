"""Which scope a route asks for, and whether anybody but this machine can reach it."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

from skewless.infra.access.api_keys import Scope

# nothing: no key at all; page: none on loopback, else any valid key; key: any valid key
Need = Scope | Literal["nothing", "page", "key"]

_HEALTH = {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
_PAGES = {"/metrics", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
_READING = {"GET", "HEAD"}
_POSTS: tuple[tuple[re.Pattern[str], Need], ...] = (
    (re.compile(r"/predict"), "predict"),
    (re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer"), "predict"),
    (re.compile(r"/events/[^/]+|/push|/feedback(/[^/]+)?"), "feedback"),
    (re.compile(r"/v2/repository/index"), "key"),
)


def scope_of(method: str, path: str) -> Need:
    """Return what a request needs; a path that is not known here and changes something needs ``admin``.

    Args:
        method: in capitals, as HTTP has it.
        path: decoded, without the query.

    >>> [scope_of("POST", "/predict"), scope_of("GET", "/health/ready"), scope_of("GET", "/models")]
    ['predict', 'nothing', 'key']
    >>> scope_of("POST", "/v2/repository/models/fraud/load")
    'admin'
    """
    if method in _READING:
        return "nothing" if path in _HEALTH else "page" if path in _PAGES else "key"
    if method == "POST":
        for pattern, need in _POSTS:
            if pattern.fullmatch(path):
                return need
    return "admin"


def is_loopback(host: str) -> bool:
    """Say whether an address to listen on can be reached from this machine alone; when in doubt it is not.

    Args:
        host: a name or an address; of the names only ``localhost`` is loopback. ``0.0.0.0``, ``::`` and an empty one
            stand for every address of the machine.

    >>> [is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "0.0.0.0", "::", "")]
    [True, True, True, True, False, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address.is_loopback if mapped is None else mapped.is_loopback
