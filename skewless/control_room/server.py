"""The process of the control room."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from contextlib import closing

import uvicorn

from skewless.contract.errors import PlaceError
from skewless.control_room.access import Local
from skewless.control_room.app import ControlRoom
from skewless.control_room.readers import Readers
from skewless.project import Project
from skewless.serving.access.needs import is_loopback

_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_TOKEN_BYTES = 32


def run_control_room(
    project: Project,
    *,
    host: str | None = None,
    port: int | None = None,
    on_ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Serve the pages of a project until SIGTERM or SIGINT.

    Args:
        host, port: None: as the settings say.
        on_ready: called with the URL when pages are served.

    Raises:
        PlaceError: the port is in use, or others could reach the pages without signing in.
    """
    host = project.settings.ui_host if host is None else host
    if not is_loopback(host):
        raise PlaceError(f"address {host!r}", "is not loopback, and nobody can sign in", fix="use 127.0.0.1")
    listener = _listen(host, project.settings.ui_port if port is None else port)
    shown = f"[{host}]" if ":" in host else host
    with closing(listener), closing(Readers(project.repo, project.settings.model_dump(exclude_unset=True))) as readers:
        room = ControlRoom(
            name=project.repo.name,
            readers=readers,
            sign_in=Local(secrets.token_urlsafe(_TOKEN_BYTES)),
            hosts=_NAMES,
        )
        config = uvicorn.Config(room.app(), log_config=None, access_log=False, server_header=False, lifespan="off")
        on_ready(f"http://{shown}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        fix = "choose another with --port or the setting ui_port"
        raise PlaceError(f"port {port} of {host}", f"is not usable: {error.strerror}", fix=fix) from error
