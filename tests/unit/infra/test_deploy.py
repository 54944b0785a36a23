"""What is shipped to be run elsewhere says what the pages say; it cannot be run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.docs.pages import page

COMPOSE = Path(__file__).parents[3] / "infra" / "deploy" / "compose.yaml"


def services() -> dict[str, Any]:
    """Return the services of the compose file."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def test_broker_and_store_listen_on_loopback_only_and_are_pinned() -> None:
    for service in services().values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["image"].partition(":")[2].partition("@")[0][0].isdigit()


def test_the_store_keeps_what_it_is_given() -> None:
    words = services()["store"]["command"].split()
    assert words[words.index("--maxmemory-policy") + 1] == "noeviction"
    assert words[words.index("--appendonly") + 1] == "yes"


def test_the_broker_tells_clients_the_address_that_the_pages_name() -> None:
    told = services()["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].removeprefix("PLAINTEXT://")
    assert f"`{told}`" in page("streams.md")
