"""The port of doors: further ways into a server, which plug-ins open beside HTTP."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from skewless.infra.platform.host.plugins import load_plugins, require_plugin
from skewless.serving.app import ServingContext
from skewless.serving.http.fair_queue import FairQueue
from skewless.serving.http.http_server import Listener
from skewless.serving.http.wire_limits import WireLimits
from skewless.serving.server_config import ServerConfig
from skewless.serving.shutdown import Shutdown


@dataclass(frozen=True)
class DoorContext:
    """What a door gets.

    Args:
        config: of the server, with the real ports.
        http: the listener for HTTP clients, whose application and TLS files a door may serve, too.
        serving: the predictor, the models, the access rules and the metrics.
        limits: of requests; they hold for each door.
        queue: of waiting requests. All doors share it, so that a server that is full is full for all.
        shutdown: is requested when the server has to end.
        stack: is closed before the predictor and the logs are: a door completes its requests in progress there.
    """

    config: ServerConfig
    http: Listener
    serving: ServingContext
    limits: WireLimits
    queue: FairQueue
    shutdown: Shutdown
    stack: AsyncExitStack


OpenDoor = Callable[[DoorContext], None]
"""Opens a door, an entry point of ``skewless.doors``. It runs in the server's event loop, and must not block it.

It returns at once where the settings do not ask for it. Otherwise it listens when it returns, answers until the
shutdown, and never after the stack is closed. An address that cannot be used is a ``PlaceError``, and ends the server.
"""


def open_doors(context: DoorContext) -> None:
    """Open the doors of all installed plug-ins.

    Raises:
        DefinitionError: a setting asks for a door that is not installed.
        PlaceError: an address cannot be used.
    """
    if context.config.settings.grpc_port is not None:
        require_plugin("skewless.doors", "grpc")
    doors: dict[str, OpenDoor] = load_plugins("skewless.doors")
    for open_door in doors.values():
        open_door(context)
