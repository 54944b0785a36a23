"""The other processes of the demo: the server, the stream worker, and commands that run once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skewless.client import Client
from skewless.contract.errors import PlaceError
from skewless.demo.tour_state import START_SECONDS, TourState

_STOP_SECONDS = 30


@contextmanager
def serving(walk: TourState) -> Iterator[Client]:
    """Start the server and lend a client of it; stop it in the end."""
    with walk.stage("Server") as say:
        begin = time.perf_counter()
        process = _start(walk, "server.log", "serve", "--port", "0", "--json")
        try:
            url = _wait_for(process, walk.project.state / "server.json")
        except PlaceError:
            process.kill()
            raise
        say(f"{url} ready after {time.perf_counter() - begin:.1f} s, {_resident_mb(process.pid)} MB")
    client = Client(url)
    try:
        yield client
    finally:
        client.close()
        _stop(process)


class StreamWorker:
    """``skewless stream`` as a process that can be killed and started again."""

    def __init__(self, walk: TourState) -> None:
        self._walk = walk
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it takes the events that come from now on, and those that nobody took."""
        self._process = _start(self._walk, "stream.log", "stream", "--json")

    def kill(self) -> int:
        """Kill it at once, as kill -9 does; return its process id."""
        if self._process is None:
            raise PlaceError("stream worker", "is not running", fix="start it first")
        process, self._process = self._process, None
        process.kill()
        process.wait(_STOP_SECONDS)
        return process.pid

    def check(self) -> None:
        """Raise if it ended by itself.

        Raises:
            PlaceError: it did.
        """
        if self._process is not None and self._process.poll() is not None:
            log = self._walk.project.state / "stream.log"
            raise PlaceError("stream worker", "has ended", value=self._process.returncode, fix=f"see {log}")

    def stop(self) -> None:
        """Let it finish what it is at."""
        if self._process is not None:
            _stop(self._process)
            self._process = None


def run_once(walk: TourState, *words: str, wanted: str, **variables: str) -> Any:  # noqa: ANN401 - JSON
    """Run a verb of the command line in a process of its own; return its JSON.

    Args:
        wanted: the field that an answer has; one without it is an error.

    Raises:
        PlaceError: the verb did not answer.
    """
    reply = subprocess.run(
        _command(walk, *words, "--json"),
        env=_environment(walk) | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    body = json.loads(reply.stdout) if reply.stdout.strip() else {}
    if wanted not in body:
        problem = body.get("error", {}).get("message") or reply.stderr.strip() or "gave no answer"
        raise PlaceError(f"command `skewless {' '.join(words)}`", f"failed: {problem}", fix="run it by hand")
    return body


def _start(walk: TourState, log: str, *words: str) -> subprocess.Popen[bytes]:
    with (walk.project.state / log).open("ab") as output:
        return subprocess.Popen(_command(walk, *words), env=_environment(walk), stdout=output, stderr=output)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(_STOP_SECONDS)


def _wait_for(process: subprocess.Popen[bytes], place: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if place.exists() and (text := place.read_text()):
            return str(json.loads(text)["url"])
        time.sleep(0.02)
    raise PlaceError("server", "did not start", value=process.poll(), fix=f"see {place.with_name('server.log')}")


def _command(walk: TourState, *words: str) -> list[str]:
    return [sys.executable, "-m", "skewless.cli", words[0], "--repo", str(walk.project.repo), *words[1:]]


def _environment(walk: TourState) -> dict[str, str]:
    # `import feast` sets these for itself; a child that inherits them would write its metrics there.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS_MULTIPROC")}
    settings = walk.project.settings
    return kept | {
        "SKEWLESS_STATE": settings.state,
        "SKEWLESS_CLOCK": settings.clock,
        "SKEWLESS_REDIS_URL": walk.project.redis_url,
    }


def _resident_mb(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "?"
    return str(int(status.split("VmRSS:")[1].split()[0]) // 1024)
