"""A host that is cut off from the database notices it, and continues when the network is back."""

from __future__ import annotations

import time
from collections.abc import Callable

from skewless.client import Client
from tests.hosts.services import SERVER_PORT
from tests.hosts.spread import SpreadProject
from tests.hosts.traffic import predict
from tests.worlds.waiting import eventually, until


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
