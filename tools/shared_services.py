"""Runs a command with a PostgreSQL, a Redis and a storage that speaks S3: ``python -m tools.shared_services COMMAND``.

The servers are those of packages, with empty data, and end with the command. The command finds them by environment
variables, as a project that several machines share does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.server import free_port, own_server
from skewless.contract.settings import Settings
from tools.postgres_server import running_postgres

BUCKET = "skewless"
# The storage accepts any.
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "shared", "AWS_SECRET_ACCESS_KEY": "shared"}
_START_S = 30.0
_END_S = 10.0
_ENDED = 128 + signal.SIGTERM


@contextmanager
def shared_services() -> Iterator[dict[str, str]]:
    """Run the servers; yield the environment variables that name them, with the credentials of the storage."""
    with ExitStack() as servers:
        variables = {
            "SKEWLESS_REDIS_URL": servers.enter_context(own_server()),
            "SKEWLESS_DATABASE_URL": servers.enter_context(running_postgres()),
        }
        if has_storage_setting():
            endpoint = servers.enter_context(running_s3())
            url = f"s3://{BUCKET}/features?endpoint={endpoint}&region=us-east-1"
            variables |= {"SKEWLESS_STORAGE_URL": url, **_CREDENTIALS}
        yield variables


def has_storage_setting() -> bool:
    """Return whether this release can store logs and packages in an object storage."""
    return "storage_url" in Settings.model_fields


@contextmanager
def running_s3() -> Iterator[str]:
    """Run a storage with an empty bucket; yield its endpoint.

    Raises:
        TimeoutError: it did not start.
    """
    port = free_port()
    command = [_python_with_moto(), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _make_bucket(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(_END_S)


def main() -> None:
    """Run the command of the arguments, and exit with its code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_ENDED))
    with shared_services() as variables:
        print("\n".join(f"{name}={value}" for name, value in variables.items()), flush=True)
        if "SKEWLESS_STORAGE_URL" not in variables:
            print("The setting storage_url does not exist in this release: logs are in the state folder.", flush=True)
        code = subprocess.run(sys.argv[1:], env={**os.environ, **variables}, check=False).returncode
    sys.exit(code)


def _python_with_moto() -> str:
    # moto's requirements contradict ours.
    beside = Path(f"{sys.prefix}-clients/bin/python")
    return str(beside) if beside.exists() else sys.executable


def _make_bucket(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.poll() is None:
        with closing(HTTPConnection("127.0.0.1", port)) as connection:
            try:
                connection.request("PUT", f"/{BUCKET}")
            except ConnectionRefusedError:
                time.sleep(0.05)
            else:
                if connection.getresponse().status == HTTPStatus.OK:
                    return
    msg = f"the storage did not start: {server.args!r}"
    raise TimeoutError(msg)


if __name__ == "__main__":
    main()
