"""The processes of the demo: the server, the stream worker, and single commands."""

from __future__ import annotations

import json
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
from skewless.operations.scheduler import child_environment

_STOP_SECONDS = 30


@contextmanager
def serving(tour: TourState) -> Iterator[Client]:
    """Start the server and yield its client; stop the server at the end."""
    with tour.stage("Server") as print_line:
        begin = time.perf_counter()
        process = _start(tour, "server.log", "serve", "--port", "0", "--json")
        try:
            url = _wait_for(process, tour.project.state / "server.json")
        except PlaceError:
            process.kill()
            raise
        print_line(f"{url} ready after {time.perf_counter() - begin:.1f} s, {_resident_mb(process.pid)} MB")
    client = Client(url)
    try:
        yield client
    finally:
        client.close()
        _stop(process)


class StreamWorker:
    """The process of ``skewless stream``, which can be killed and started again."""

    def __init__(self, tour: TourState) -> None:
        self._tour = tour
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; it ingests new events and events of the time without a worker."""
        self._process = _start(self._tour, "stream.log", "stream", "--json")

    def kill(self) -> int:
        """Kill the process with SIGKILL; return its id."""
        if self._process is None:
            raise PlaceError("stream worker", "is not running", fix="start it first")
        process, self._process = self._process, None
        process.kill()
        process.wait(_STOP_SECONDS)
        return process.pid

    def check(self) -> None:
        """Check that the process has not ended.

        Raises:
            PlaceError: it has ended.
        """
        if self._process is not None and self._process.poll() is not None:
            log = self._tour.project.state / "stream.log"
            raise PlaceError("stream worker", "has ended", value=self._process.returncode, fix=f"read {log}")

    def stop(self) -> None:
        """Stop the process after its current batch."""
        if self._process is not None:
            _stop(self._process)
            self._process = None


def run_command(tour: TourState, *words: str, field: str, **variables: str) -> Any:  # noqa: ANN401 - JSON
    """Run a command in a process; return its JSON.

    Args:
        field: a field of the expected result.

    Raises:
        PlaceError: the command failed.
    """
    reply = subprocess.run(
        _command(tour, *words, "--json"),
        env=_environment(tour) | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    body = json.loads(reply.stdout) if reply.stdout.strip() else {}
    if field not in body:
        problem = body.get("error", {}).get("message") or reply.stderr.strip() or "printed no result"
        raise PlaceError(f"command `skewless {' '.join(words)}`", f"failed: {problem}", fix="run the command by hand")
    return body


def _start(tour: TourState, log: str, *words: str) -> subprocess.Popen[bytes]:
    with (tour.project.state / log).open("ab") as output:
        return subprocess.Popen(_command(tour, *words), env=_environment(tour), stdout=output, stderr=output)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(_STOP_SECONDS)


def _wait_for(process: subprocess.Popen[bytes], file: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if file.exists() and (text := file.read_text()):
            return str(json.loads(text)["url"])
        time.sleep(0.02)
    raise PlaceError("server", "did not start", value=process.poll(), fix=f"read {file.with_name('server.log')}")


def _command(tour: TourState, *words: str) -> list[str]:
    return [sys.executable, "-m", "skewless.cli", words[0], "--repo", str(tour.project.repo), *words[1:]]


def _environment(tour: TourState) -> dict[str, str]:
    return child_environment(tour.project) | {"SKEWLESS_REDIS_URL": tour.project.redis_url}


def _resident_mb(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return "?"
    return str(int(status.split("VmRSS:")[1].split()[0]) // 1024)
