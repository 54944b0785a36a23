"""Servers as processes: started on a core of their own, ready when they answer, gone afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.contestant import ContestantError
from benchmarks.cores import on_core
from benchmarks.http_load import Address, LoadError, ask

_ROOT = Path(__file__).parents[1]
_PORT = "{port}"
_PAUSE_S = 0.01
_STOP_S = 20.0
_TAIL = 4_000
_SKEWLESS = "from skewless.cli import main; main()"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server that can be started.

    Args:
        command: what runs it; ``{port}`` stands for the port on loopback that it is to listen on.
        first: a request that it answers with 200 once it is ready.
        environment: what is set besides; ``{port}`` stands for the port here too.
        start_s: when it counts as stuck.
    """

    name: str
    command: tuple[str, ...]
    first: bytes
    environment: Mapping[str, str] = field(default_factory=dict)
    start_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that answers.

    Args:
        ready_seconds: from the start of the process to the first answer.
    """

    address: Address
    pid: int
    ready_seconds: float

    def cpu_seconds(self) -> float:
        """Return what the process and its children took so far, user and system."""
        return sum(time.clock_gettime(_cpu_clock(pid)) for pid in self._family())

    def resident_bytes(self) -> int:
        """Return the memory that the process and its children hold, pages that they share counted once."""
        return sum(_share_of_memory(pid) for pid in self._family())

    def _family(self) -> list[int]:
        family = [self.pid]
        for pid in family:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                family += map(int, task.read_text().split())
        return family


@contextmanager
def running(server: Server, core: int | None) -> Iterator[Running]:
    """Start a server, yield it when it answers, and stop it.

    Args:
        core: where all its threads run; None: wherever there is room.

    Raises:
        ContestantError: it ended, or did not answer in time.
    """
    address = Address(port=_free_port())
    command = [part.replace(_PORT, str(address.port)) for part in server.command]
    own = {name: value.replace(_PORT, str(address.port)) for name, value in server.environment.items()}
    # An installation writes its bytecode at the first start.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**inherited, "FEAST_USAGE": "False", "PYTHONHASHSEED": "0", **own}
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        placed = command if core is None else on_core(core, command)
        process = subprocess.Popen(placed, cwd=_ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            while refusal := _refusal(address, server.first):
                waited = time.perf_counter() - begun
                if process.poll() is not None or waited > server.start_s:
                    output.seek(0)
                    told = output.read().decode(errors="replace")[-_TAIL:]
                    raise ContestantError(f"{server.name} does not answer after {waited:.0f} s: {refusal}\n{told}")
                time.sleep(_PAUSE_S)
            yield Running(address=address, pid=process.pid, ready_seconds=time.perf_counter() - begun)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def skewless_server(repo: Path, url: str, first: bytes, name: str = "skewless", **settings: str) -> Server:
    """Return our server as a user starts it; settings go by their names."""
    command = (sys.executable, "-c", _SKEWLESS, "serve", "--repo", str(repo), "--port", _PORT)
    environment = {"SKEWLESS_REDIS_URL": url, **{f"SKEWLESS_{name.upper()}": value for name, value in settings.items()}}
    return Server(name=name, command=command, first=first, environment=environment)


def peer_server(module: str, *arguments: str, name: str, first: bytes, python: str = sys.executable) -> Server:
    """Return a peer out of ``benchmarks.peers``; its first argument is the port."""
    return Server(name=name, command=(python, "-m", f"benchmarks.peers.{module}", _PORT, *arguments), first=first)


def _refusal(address: Address, request: bytes) -> str:
    """Return why a request is not answered with 200; nothing: it is."""
    try:
        ask(address, [request])
    except (OSError, LoadError) as error:
        return str(error)
    return ""


def _cpu_clock(pid: int) -> int:
    """Return the clock of a process's CPU time, as clock_getcpuclockid(3) of Linux does: in nanoseconds, not ticks."""
    return (~pid << 3) | 2


def _share_of_memory(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
