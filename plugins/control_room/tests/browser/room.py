"""A running control room."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.prediction import PROGRAM


@contextmanager
def running_room(repo: Path, *, port: int = 0, **settings: str) -> Iterator[str]:
    """Start ``skewless ui``; yield its URL.

    Args:
        port: 0: any free port.
        settings: environment variables, such as ``SKEWLESS_UI_HOST``.
    """
    words = [*PROGRAM, "ui", "--repo", str(repo), "--port", str(port), "--json"]
    environment = {**os.environ, **settings}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the control room ended with {process.wait()}"
            yield json.loads(line)["url"]
        finally:
            process.terminate()
