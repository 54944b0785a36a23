"""The private server among real processes that are really killed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import redis

from skewless.contract.errors import PlaceError, StoreError
from skewless.infra.reads.online import private_address
from skewless.infra.reads.online.private_server import PrivateServer
from tests.worlds.waiting import is_alive, until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[4]
GRACE_S = 0.4
USER = """
import sys
from pathlib import Path
from skewless.infra.reads.online.private_server import PrivateServer
print(PrivateServer(Path(sys.argv[1]), grace_s=float(sys.argv[2])).ensure(), flush=True)
sys.stdin.read()
"""


class User:
    """Another process that uses the server until it is killed."""

    def __init__(self, state: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(state), str(GRACE_S)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def url(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def users(state: Path, count: int) -> Iterator[list[User]]:
    some = [User(state) for _ in range(count)]
    try:
        yield some
    finally:
        for user in some:
            user.kill()


@contextlib.contextmanager
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, decode_responses=True) as connection:
        yield connection
        connection.connection_pool.disconnect()


@pytest.fixture
def private(tmp_path: Path) -> Iterator[PrivateServer]:
    one = PrivateServer(tmp_path / "state", grace_s=GRACE_S)
    yield one
    one.stop()


def state_of(private: PrivateServer) -> Path:
    return private.folder.parent


def config_of(connection: redis.Redis) -> dict[str, str]:
    return cast("dict[str, str]", connection.config_get("*"))


def running_pids(private: PrivateServer) -> tuple[int, int]:
    status = private.status()
    assert status.running
    assert status.server_pid is not None
    assert status.watcher_pid is not None
    return status.server_pid, status.watcher_pid


def test_starts_with_the_promised_configuration(private: PrivateServer) -> None:
    with client(private.ensure()) as connection:
        config = config_of(connection)
    wanted = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "unixsocketperm": "700",
        "port": "0",
    }
    assert {name: config[name] for name in wanted} == wanted
    assert Path(config["dir"]) == private.folder
    assert list(private.folder.glob("appendonlydir/*.aof"))


def test_the_socket_is_private_and_a_second_object_finds_the_server(private: PrivateServer) -> None:
    url = private.ensure()
    before = running_pids(private)
    other = PrivateServer(state_of(private))
    assert other.ensure() == url
    assert running_pids(other) == before
    other.release()
    path = Path(url.removeprefix("unix://"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(private.folder.stat().st_mode) == 0o700


def test_concurrent_starts_make_exactly_one_server(private: PrivateServer) -> None:
    with users(state_of(private), 3) as some:
        urls = {user.url() for user in some}
        assert len(urls) == 1
        log = (private.folder / "server.log").read_text()
        assert log.count("Ready to accept connections") == 1
        with client(urls.pop()) as connection:
            assert cast("dict[str, int]", connection.info("server"))["process_id"] == running_pids(private)[0]


def test_outlives_its_killed_starter_and_ends_after_the_last_user(private: PrivateServer) -> None:
    with users(state_of(private), 1) as starter:
        url = starter[0].url()
        pids = running_pids(private)
        with users(state_of(private), 1) as second:
            assert second[0].url() == url
            starter[0].kill()
            time.sleep(GRACE_S + 0.6)
            with client(url) as connection:
                connection.set("kept", "yes")
            assert running_pids(private) == pids
        until(lambda: not any(is_alive(pid) for pid in pids))
    assert not private.status().running
    with client(private.ensure()) as connection:
        assert connection.get("kept") == "yes"


def test_a_released_lease_ends_the_server_and_a_new_one_keeps_it(private: PrivateServer) -> None:
    private.ensure()
    first = running_pids(private)
    private.release()
    private.ensure()
    time.sleep(GRACE_S + 0.6)
    assert running_pids(private) == first
    private.release()
    until(lambda: not private.status().running)
    until(lambda: not any(is_alive(pid) for pid in first))


def test_a_killed_server_is_started_again_with_its_data_on_the_same_address(private: PrivateServer) -> None:
    url = private.ensure()
    with client(url) as connection:
        connection.set("k", "1")
        connection.waitaof(1, 0, 5000)
    first, watcher = running_pids(private)
    time.sleep(0.6)  # one that dies within half a second is not started again
    os.kill(first, signal.SIGKILL)
    until(lambda: (now := private.status()).running and now.server_pid != first)
    assert running_pids(private)[1] == watcher
    with client(url) as connection:
        assert connection.get("k") == "1"


def test_a_killed_watcher_leaves_no_second_writer(private: PrivateServer) -> None:
    with client(private.ensure()) as connection:
        connection.set("k", "1")
    old_server, old_watcher = running_pids(private)
    os.kill(old_watcher, signal.SIGKILL)
    until(lambda: private.status().watcher_pid is None)
    with client(private.ensure()) as connection:
        assert connection.get("k") == "1"
    assert not is_alive(old_server)
    assert running_pids(private)[0] != old_server


def test_everything_killed_at_once_leaves_no_orphan_and_starts_again(private: PrivateServer) -> None:
    with users(state_of(private), 1) as some:
        with client(some[0].url()) as connection:
            connection.set("k", "1")
        pids = running_pids(private)
        some[0].kill()
        os.kill(pids[1], signal.SIGKILL)
    if sys.platform == "linux":
        until(lambda: not is_alive(pids[0]))
    with client(private.ensure()) as connection:
        assert connection.get("k") == "1"


def test_stop_is_clean_and_may_be_repeated(private: PrivateServer) -> None:
    private.ensure()
    pids = running_pids(private)
    private.stop()
    assert not is_alive(pids[0])
    until(lambda: not is_alive(pids[1]))
    assert "ready to exit" in (private.folder / "server.log").read_text()
    private.stop()
    assert not private.status().running


def test_a_shutdown_by_a_client_is_obeyed(private: PrivateServer) -> None:
    with client(private.ensure()) as connection:
        connection.shutdown()
    until(lambda: private.status().watcher_pid is None)
    assert not private.status().running
    private.ensure()
    assert private.status().running


def test_stale_files_are_no_obstacle(private: PrivateServer) -> None:
    private.folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(private.folder / private_address.SOCKET_NAME))
    for name in ("watcher.lock", "server.lock"):
        (private.folder / name).write_text(f"{os.getpid()}\n")
    (private.folder / "server.json").write_text("{broken")
    private.ensure()
    assert os.getpid() not in running_pids(private)


def test_a_removed_state_folder_gets_a_new_server_and_ends_the_old(private: PrivateServer) -> None:
    private.ensure()
    pids = running_pids(private)
    shutil.rmtree(private.folder)
    private.ensure()
    assert running_pids(private) != pids
    until(lambda: not any(is_alive(pid) for pid in pids))
    assert private.status().running


@pytest.mark.parametrize("name", ["with space", 'quo"te\\', "ünï", "per%20cent#?"])
def test_odd_folder_names(tmp_path: Path, name: str) -> None:
    private = PrivateServer(tmp_path / name, grace_s=GRACE_S)
    try:
        with client(private.ensure()) as connection:
            assert connection.ping()
    finally:
        private.stop()


def test_a_long_path_gets_a_socket_in_a_private_folder_that_is_removed(tmp_path: Path) -> None:
    private = PrivateServer(tmp_path / ("long" * 30), grace_s=GRACE_S)
    try:
        url = private.ensure()
        path = Path(url.removeprefix("unix://"))
        assert private.folder not in path.parents
        assert len(os.fsencode(path)) < 100
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        with client(url) as connection:
            assert Path(config_of(connection)["dir"]) == private.folder
    finally:
        private.stop()
    assert not path.parent.exists()


def test_a_taken_port_is_replaced_and_strangers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = PrivateServer(tmp_path, grace_s=GRACE_S, use_port=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ports = iter([taken.getsockname()[1], private_address._free_port()])
        monkeypatch.setattr(private_address, "_free_port", lambda: next(ports))
        try:
            url = private.ensure()
            with client(url) as connection:
                assert config_of(connection)["bind"] == "127.0.0.1"
            stranger = f"redis://127.0.0.1:{url.rsplit(':', 1)[1]}"
            with client(stranger) as connection, pytest.raises(redis.AuthenticationError):
                connection.ping()
        finally:
            private.stop()


def test_a_missing_program_names_the_remedy(private: PrivateServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(PlaceError, match="SKEWLESS_REDIS_URL"):
        private.ensure()
    assert not private._users.is_held()


def test_an_unusable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(PlaceError, match=str(tmp_path / "state")):
        PrivateServer(tmp_path / "state").ensure()


def test_a_server_that_cannot_start_shows_its_log(private: PrivateServer) -> None:
    private.folder.mkdir(parents=True)
    (private.folder / "appendonlydir").write_text("not a folder")
    with pytest.raises(StoreError, match=r"did not start.*appendonlydir.*server.log"):
        private.ensure()
    assert private.status().server_pid is None
