"""What other processes read of a running server, and systemd hears on both kinds of sockets."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from skewless.contract.clock import OffsetClock, SystemClock
from skewless.contract.settings import Settings
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.serving.server_config import ServerConfig, announce_server, notify


class WrittenFiles:
    """Collects the paths that this process creates or empties by opening them; Python cannot remove an audit hook."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_CREAT | os.O_TRUNC):
            self.paths.add(str(arguments[0]))


WRITTEN = WrittenFiles()


def server_config(folder: Path) -> ServerConfig:
    return ServerConfig(
        repo=folder,
        state=ProjectState(folder),
        redis_url="redis://127.0.0.1:1/0",
        clock=SystemClock(),
        settings=Settings(),
    )


def test_a_server_that_ends_leaves_the_file_of_another_server(tmp_path: Path) -> None:
    file = tmp_path / "server.json"
    with announce_server(server_config(tmp_path), lambda _: None) as ready:
        ready()
        file.write_text(json.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid() + 1, "workers": 1}))
    assert json.loads(file.read_bytes())["pid"] == os.getpid() + 1


def test_the_file_of_a_server_is_complete_as_soon_as_it_exists(tmp_path: Path) -> None:
    file = tmp_path / "server.json"
    with announce_server(server_config(tmp_path), lambda _: None) as ready:
        ready()
        assert json.loads(file.read_bytes())["pid"] == os.getpid()
        assert str(file) not in WRITTEN.paths
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_clock_is_complete_as_soon_as_it_exists(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    OffsetClock.create(file)
    assert file.stat().st_size == 8
    assert str(file) not in WRITTEN.paths
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("abstract", [False, True])
def test_the_state_arrives(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    if abstract and sys.platform != "linux":
        pytest.skip("only Linux has abstract sockets")
    monkeypatch.chdir(tmp_path)
    name = f"sk-{uuid4().hex}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        manager.settimeout(5)
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    opened: list[object] = []
    monkeypatch.setattr(socket, "socket", lambda *args: opened.append(args))
    notify("READY=1")
    assert opened == []


def test_a_service_manager_that_has_gone_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "n"))
    notify("READY=1")
    assert not (tmp_path / "n").exists()
