"""An address belongs to one server, and may be shared by its workers only."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from skewless.contract.errors import PlaceError
from skewless.serving.http.sockets import allow_sharing, bind, listen_on_path, reject_new_connections

HOST = "127.0.0.1"


def test_workers_share_the_address_of_their_server() -> None:
    with bind(HOST, 0) as link:
        port = link.getsockname()[1]
        allow_sharing(link)
        with bind(HOST, port, shared=True) as one, bind(HOST, port, shared=True) as other:
            one.listen()
            other.listen()
            with socket.create_connection((HOST, port)):
                pass


def test_another_server_does_not_get_into_a_shared_address() -> None:
    with bind(HOST, 0) as link:
        port = link.getsockname()[1]
        allow_sharing(link)
        with bind(HOST, port, shared=True) as worker:
            worker.listen()
            with pytest.raises(PlaceError, match=f"address 127.0.0.1:{port}: cannot be used"):
                bind(HOST, port)


def test_no_worker_gets_into_the_address_of_a_single_process() -> None:
    with bind(HOST, 0) as link:
        link.listen()
        with pytest.raises(PlaceError, match="cannot be used"):
            bind(HOST, link.getsockname()[1], shared=True)


def test_nothing_is_accepted_before_the_server_listens() -> None:
    with bind(HOST, 0) as link, pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, link.getsockname()[1])).close()


def test_a_socket_file_that_was_left_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = Path("0.sock")
    listen_on_path(place).close()
    assert place.is_socket()
    with listen_on_path(place), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))


def test_a_path_that_is_too_long_for_a_socket_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match=r"cannot be created: .*too long.*TMPDIR"):
        listen_on_path(tmp_path / ("x" * 120))


@pytest.mark.skipif(sys.platform != "linux", reason="a socket filter of Linux")
def test_what_waits_is_taken_and_what_comes_later_is_refused_once_it_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as link, socket.create_connection(link.getsockname()) as early:
        early.sendall(b"x")
        reject_new_connections(link)
        with socket.socket() as late:
            late.settimeout(0.2)
            with pytest.raises(TimeoutError):
                late.connect(link.getsockname())
        taken, _ = link.accept()
        with taken:
            early.sendall(b"y")
            early.shutdown(socket.SHUT_WR)
            with taken.makefile("rb") as sent:
                assert sent.read() == b"xy"
        address = link.getsockname()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_socket_files_are_left_alone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reject_new_connections(ours)
        theirs.sendall(b"z")
        assert ours.recv(1) == b"z"
