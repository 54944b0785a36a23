"""A client of the prediction API: ``Client`` for threads, ``AsyncClient`` for asyncio, of one logic.

::

    calls ──> attempts ──> pool, connection        (Client: sockets that block)
    replies <── attempts <── pool, async_connection (AsyncClient: the event loop)

What is sent, how replies and errors are read, and when a call is repeated is written once, without I/O. ``AsyncClient``
is loaded on first use, so that a program of threads does not load asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skewless.client.calls import PredictOptions
from skewless.client.limits import Limits
from skewless.client.replies import Model, Models, Prediction, Readiness, Reply, ReplyView
from skewless.client.retries import Retries
from skewless.client.sync_client import Client

if TYPE_CHECKING:
    from skewless.client.async_client import AsyncClient

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


def __getattr__(name: str) -> object:
    """Load ``AsyncClient`` when it is first asked for (PEP 562)."""
    if name == "AsyncClient":
        from skewless.client.async_client import AsyncClient  # noqa: PLC0415 - it loads asyncio

        return AsyncClient
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
