"""Sockets on which the server listens."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from skewless.contract.errors import PlaceError
from skewless.serving.server_config import ServerConfig

_BACKLOG = 1_024
_SO_ATTACH_FILTER = 26
_BPF_RETURN = 0x06  # with 0 bytes of the packet to keep


def bind(host: str, port: int, *, shared: bool = False, setting: str = "--port") -> socket.socket:
    """Return a bound socket; it does not listen yet.

    Args:
        port: 0: any free port.
        shared: whether other sockets of this user may share the address, if each calls ``allow_sharing``.
        setting: name of the port's setting, for the error.

    Raises:
        PlaceError: the address does not belong to this machine, or a socket that does not share has it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol given, the event loop disables Nagle's algorithm, which would delay replies by 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # Without it, a restarted server could not bind while old connections are in TIME_WAIT.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        allow_sharing(sock)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise PlaceError(
            f"address {host}:{port}",
            f"cannot be used: {error.strerror}",
            fix=f"choose another {setting}, or 0 for any free port",
        ) from error
    return sock


def allow_sharing(sock: socket.socket) -> None:
    """Let other sockets bind the address, too. Call it after ``bind``, which ensures that the address was free."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


@contextlib.contextmanager
def reserve_grpc_port(config: ServerConfig) -> Iterator[ServerConfig]:
    """Yield the configuration with the real port for gRPC, which all workers of this user can then share.

    Raises:
        PlaceError: the address cannot be used.
    """
    settings = config.settings
    if settings.grpc_port is None:
        yield config
        return
    with bind(settings.host, settings.grpc_port, setting="grpc_port") as sock:
        allow_sharing(sock)
        yield config.with_ports(grpc_port=sock.getsockname()[1])


def reject_new_connections(sock: socket.socket) -> None:
    """Reject new connections, on Linux: clients get a refused connection once the socket is closed, not a reset.

    A socket filter drops packets to the listening socket itself; connections in its queue are not affected.
    """
    if sys.platform != "linux" or sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    drop_filter = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(drop_filter)))


def listen_on_path(path: Path) -> socket.socket:
    """Return a listening Unix socket; the permissions of its folder decide who may use it.

    Raises:
        PlaceError: the socket cannot be created.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The file of a killed process stays, and would block the bind.
        path.unlink(missing_ok=True)
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise PlaceError(
            f"socket {path}",
            f"cannot be created: {error.strerror or error}",
            fix="set TMPDIR to a short, writable path",
        ) from error
    sock.listen(_BACKLOG)
    return sock
