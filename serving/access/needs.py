"""What a request needs: its scope and the model that it names, both from its path."""

from __future__ import annotations

import re
from typing import Literal

from skewless.infra.platform.access.api_keys import Scope

# nothing: no key; page: no key on loopback, otherwise any valid key for all models; key: any valid key
Need = Scope | Literal["nothing", "page", "key"]

_HEALTH_PATHS = {"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
_PAGE_PATHS = {"/metrics", "/docs", "/openapi.json"}
_PAGE_ASSETS = "/docs/"
_READ_METHODS = {"GET", "HEAD"}
_POST_SCOPES: tuple[tuple[re.Pattern[str], Need], ...] = (
    (re.compile(r"/predict"), "predict"),
    (re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer"), "predict"),
    (re.compile(r"/events/[^/]+|/push|/feedback(/[^/]+)?"), "feedback"),
    (re.compile(r"/v2/repository/index"), "key"),
)
_MODEL = re.compile(r"(?:/v2(?:/repository)?)?/models/([^/]*)(?:/.*)?", re.DOTALL)
_ALL_MODELS = {("GET", "/v2/models/stats"), ("POST", "/models/refresh")}  # routes whose last part is not a model


def scope_of(method: str, path: str) -> Need:
    """Return the scope that a request requires; an unknown path with a writing method requires ``admin``.

    Args:
        method: in capitals.
        path: decoded, without the query.

    >>> [scope_of("POST", "/predict"), scope_of("GET", "/health/ready"), scope_of("GET", "/models")]
    ['predict', 'nothing', 'key']
    >>> scope_of("POST", "/v2/repository/models/fraud/load")
    'admin'
    """
    if method in _READ_METHODS:
        if path in _HEALTH_PATHS:
            return "nothing"
        return "page" if path in _PAGE_PATHS or path.startswith(_PAGE_ASSETS) else "key"
    if method == "POST":
        for pattern, need in _POST_SCOPES:
            if pattern.fullmatch(path):
                return need
    return "admin"


def model_of(method: str, path: str) -> str | None:
    """Return the model that a path names; None: it names none, and its body may name one.

    Args:
        method: in capitals, HEAD as GET.
        path: decoded, without the query.

    >>> model_of("GET", "/v2/models/fraud/config"), model_of("POST", "/v2/repository/models/fraud/load")
    ('fraud', 'fraud')
    >>> model_of("POST", "/predict"), model_of("GET", "/v2/models/stats")
    (None, None)
    """
    match = _MODEL.fullmatch(path)
    return None if match is None or (method, path) in _ALL_MODELS else match[1]
