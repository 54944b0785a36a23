"""What systemd hears, on the two kinds of sockets that it may listen on."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from skewless.serving.server_config import notify


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
