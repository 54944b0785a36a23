"""A TCP proxy in a process of its own, which can be killed and started again at its address."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.worlds.ports import free_ports

_PROGRAM = """
import asyncio, sys
port, target, host = int(sys.argv[1]), int(sys.argv[2]), "127.0.0.1"
async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
async def serve(reader, writer):
    there, back = await asyncio.open_connection(host, target)
    await asyncio.gather(copy(reader, back), copy(there, writer))
async def main():
    server = await asyncio.start_server(serve, host, port)
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


class Proxy:
    """Passes bytes to a port of this machine while it runs."""

    def __init__(self, target: int) -> None:
        self.port = free_ports(1)[0]
        self._target = target
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Listen."""
        command = [sys.executable, "-c", _PROGRAM, str(self.port), str(self._target)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """End all connections, and refuse new ones."""
        if self._process is not None:
            with self._process as process:
                process.kill()
            self._process = None


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Run a proxy to a port."""
    proxy = Proxy(port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.kill()
