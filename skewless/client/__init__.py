"""A client of the prediction API: ``Client`` for threads, ``AsyncClient`` for asyncio, of one logic.

::

    calls ──> attempts ──> urllib3 (Client: sockets that block)
    replies <── attempts <── aiohttp (AsyncClient: the event loop)

What is sent, how replies and errors are read, and when a call is repeated is written once, without I/O. A client is
loaded with its library when it is first asked for.
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
    """Load a client when it is first asked for (PEP 562)."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
