"""Hosts of one network on this machine: network namespaces on a bridge, which can be cut off from each other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers.prediction import ROOT
from tests.worlds.waiting import PATIENCE_S

_IP = shutil.which("ip") or "ip"
# Enters the network, gets a host name of its own, dies with the test, and becomes the command: its pid stays the same.
_ENTER = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
network = os.open("/run/netns/" + sys.argv[1], os.O_RDONLY)
if libc.setns(network, 0x40000000) or libc.unshare(0x04000000):
    raise OSError(ctypes.get_errno(), "setns, unshare")
socket.sethostname(sys.argv[1])
libc.prctl(1, 9)
os.execvp(sys.argv[2], sys.argv[2:])
"""


@dataclass
class HostProgram:
    """A process on a host."""

    command: Sequence[str]
    host: str
    log: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output is appended to a file."""
        words = [sys.executable, "-I", "-S", "-c", _ENTER, self.host, *self.command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                words, cwd=ROOT, env=dict(self.environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """Kill it as a power cut does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def pause(self) -> None:
        """Stop it, as a machine that swaps or migrates."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it continue."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """Ask it to end; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


@dataclass
class Host:
    """One host.

    Args:
        name: of its network namespace, and its host name.
        folder: its files; no other host reads them.
    """

    name: str
    address: str
    folder: Path
    programs: dict[str, HostProgram] = field(default_factory=dict)

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> HostProgram:
        """Start a program under a name, with which it can be started again."""
        log = self.folder / f"{name}.log"
        program = HostProgram(command, self.name, log, os.environ if environment is None else environment)
        self.programs[name] = program
        program.start()
        return program

    def cut_off(self, *others: Host) -> None:
        """Drop all packets from and to other hosts, also of open connections; nobody gets an error."""
        for other in others:
            self._run("iptables", "-w", "-A", "INPUT", "-s", other.address, "-j", "DROP")
            self._run("iptables", "-w", "-A", "OUTPUT", "-d", other.address, "-j", "DROP")

    def heal(self) -> None:
        """Reach all hosts again."""
        self._run("iptables", "-w", "-F")

    def close(self) -> None:
        """Kill all programs."""
        for program in self.programs.values():
            if program.is_running:
                program.kill()

    def _run(self, *command: str) -> None:
        subprocess.run([_IP, "netns", "exec", self.name, *command], check=True, capture_output=True)


@contextmanager
def connected_hosts(folder: Path, names: Sequence[str]) -> Iterator[list[Host]]:
    """Make hosts that reach each other and this process; the test is skipped where that is not allowed."""
    for tool in ("ip", "iptables"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on this machine: `apt-get install iproute2 iptables` (Debian) brings it")
    tag = f"{os.getpid() % 0xFFFF:04x}"
    free = ((os.getpid() + n) % 250 for n in range(250))
    net = next(net for n in free if not _ip("route", "show", f"{(net := f'10.77.{n}')}.0/24").stdout)
    bridge = f"skb{tag}"
    if (made := _ip("link", "add", bridge, "type", "bridge")).returncode:
        pytest.skip(f"network namespaces are not allowed here: {made.stderr.strip()}")
    hosts = [Host(f"{name}-{tag}", f"{net}.{i}", folder / name) for i, name in enumerate(names, 1)]
    try:
        _must("addr", "add", f"{net}.254/24", "dev", bridge)
        _must("link", "set", bridge, "up")
        for i, host in enumerate(hosts):
            host.folder.mkdir(parents=True)
            _connect(host, f"skv{tag}{i}", bridge)
        yield hosts
    finally:
        for host in hosts:
            host.close()
            _ip("netns", "del", host.name)
        _ip("link", "del", bridge)


def _connect(host: Host, port: str, bridge: str) -> None:
    _must("netns", "add", host.name)
    _must("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", host.name)
    _must("link", "set", port, "master", bridge, "up")
    _must("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
    _must("-n", host.name, "link", "set", "eth0", "up")
    _must("-n", host.name, "link", "set", "lo", "up")


def _ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([_IP, *words], capture_output=True, text=True, check=False)


def _must(*words: str) -> None:
    done = _ip(*words)
    assert done.returncode == 0, (words, done.stderr)
