"""The sockets that a server listens on."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
from pathlib import Path

from skewless.contract.errors import PlaceError

_BACKLOG = 1_024
_SO_ATTACH_FILTER = 26
_BPF_RETURN = 0x06  # with 0 bytes of the packet to keep


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that nobody else has this address of; it does not listen yet.

    Args:
        port: 0: any free one.

    Raises:
        PlaceError: the address is in use, or none of this machine.
    """
    return _bound(_tcp(host), host, port)


def bind_shared(host: str, port: int) -> socket.socket:
    """Return a socket that others of this user may share the address with, if all say so: see ``allow_sharing``.

    Raises:
        PlaceError: somebody has the address who does not share it.
    """
    link = _tcp(host)
    allow_sharing(link)
    return _bound(link, host, port)


def allow_sharing(link: socket.socket) -> None:
    """Let others bind the address as well. Said after ``bind``: the address was nobody else's until then."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def listen(link: socket.socket) -> socket.socket:
    """Take connections from here on; the kernel spreads them over all who share the address."""
    link.listen(_BACKLOG)
    return link


def refuse_new(link: socket.socket) -> None:
    """Let no new connection begin, on Linux: whoever tries meanwhile is refused once the socket is closed, not reset.

    Those that wait to be taken are left alone: a socket filter that drops what comes to the listening socket itself.
    """
    if sys.platform != "linux" or link.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    drop = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))
    with contextlib.suppress(OSError):
        link.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(drop)))


def listen_privately(place: Path) -> socket.socket:
    """Return a listening socket file; who may use it is a matter of its folder.

    Raises:
        PlaceError: no socket can be there.
    """
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        place.unlink(missing_ok=True)
        link.bind(str(place))
    except OSError as error:
        link.close()
        raise PlaceError(
            f"socket {place}", f"cannot be made: {error.strerror or error}", fix="set TMPDIR to a short, writable path"
        ) from error
    return listen(link)


def _bound(link: socket.socket, host: str, port: int) -> socket.socket:
    try:
        link.bind((host, port))
    except OSError as error:
        link.close()
        raise PlaceError(
            f"address {host}:{port}",
            f"cannot be used: {error.strerror}",
            fix="choose another --port, or 0 for any free one",
        ) from error
    return link


def _tcp(host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, the event loop turns Nagle's delay off (40 ms a reply).
    link = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return link
