"""A host that is cut off from the database notices it, and continues when the network is back."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from skewless.client import Client
from tests.nightly.hosts.host import connected_hosts
from tests.nightly.hosts.services import SERVER_PORT, start_postgres
from tests.nightly.hosts.spread import SpreadProject
from tests.nightly.hosts.traffic import predict
from tests.worlds.waiting import eventually, until

_QUERIES = """
import sys, time
from skewless.contract.errors import StoreError
from skewless_postgres.database import PostgresDatabase
database = PostgresDatabase(sys.argv[1])
while True:
    try:
        print(database.query("SELECT 'up'")[0][0], flush=True)
    except StoreError:
        print("down", flush=True)
    time.sleep(0.1)
"""


def test_a_query_does_not_wait_for_tcp(tmp_path: Path) -> None:
    with (
        connected_hosts(tmp_path, ("client", "database")) as (client, database),
        tempfile.TemporaryDirectory(prefix="pg-") as folder,
    ):
        Path(folder).chmod(0o755)  # PostgreSQL's user must be able to pass through
        url = start_postgres(database, Path(folder))
        program = client.start("queries", [sys.executable, "-c", _QUERIES, url])
        until(lambda: "up" in program.log.read_text())
        client.cut_off(database)
        until(lambda: "down" in program.log.read_text())
        client.heal()
        until(lambda: program.log.read_text().endswith("up\n"))


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_server_says_that_it_is_cut_off_from_the_database(spread: SpreadProject, tell: Callable[[str], None]) -> None:
    host = spread.serving[0]
    url = f"http://{host.address}:{SERVER_PORT}"

    def details() -> dict[str, str]:
        with Client(url, key="") as client:
            return dict(client.ready().details)

    assert details() == {}
    for seconds in (0, 30):
        host.cut_off(spread.services["database"])
        began = time.monotonic()
        eventually(details)
        noticed = time.monotonic() - began
        time.sleep(seconds)
        assert predict(url)[0] == 200
        host.heal()
        began = time.monotonic()
        eventually(details, lambda found: found == {})
        tell(f"noticed after {noticed:.1f} s, back {time.monotonic() - began:.1f} s after the network")
    until(lambda: all(item["lives"] for item in spread.project.ask("status")["processes"]))
