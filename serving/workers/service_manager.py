"""What systemd is told about the server, if it asked for it (``Type=notify``)."""

from __future__ import annotations

import contextlib
import os
import socket

VARIABLE = "NOTIFY_SOCKET"


def notify(state: str) -> None:
    """Send ``READY=1`` or ``STOPPING=1`` to the service manager that started this process; without one, do nothing."""
    place = os.environ.get(VARIABLE)
    if not place:
        return
    address = f"\0{place[1:]}" if place.startswith("@") else place
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link, contextlib.suppress(OSError):
        link.sendto(state.encode(), address)
