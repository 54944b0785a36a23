"""Client of the prediction API: ``Client`` for threads and ``AsyncClient`` for asyncio, with shared logic.

::

    calls ──> attempts ──> urllib3 (Client: blocking sockets)
    replies <── attempts <── aiohttp (AsyncClient: event loop)

Requests, replies, errors and retries are implemented once, without I/O. Each client class is imported, with its HTTP
library, on first access.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from skewless.client.calls import PredictOptions
from skewless.client.limits import Limits, Retries
from skewless.client.replies import Model, Models, Prediction, Readiness, Reply, ReplyView

if TYPE_CHECKING:
    from skewless.client.async_client import AsyncClient
    from skewless.client.sync_client import Client

__all__ = [
    "AsyncClient",
    "Client",
    "Limits",
    "Model",
    "Models",
    "PredictOptions",
    "Prediction",
    "Readiness",
    "Reply",
    "ReplyView",
    "Retries",
]

_HOMES = {"AsyncClient": "async_client", "Client": "sync_client"}


def __getattr__(name: str) -> object:
    """Import a client class on first access (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
