"""EventForwarder over HTTP for a source that is a Kafka topic: sent there, and read from there."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoints

import pytest

from skewless.contract.errors import DefinitionError
from skewless.contract.settings import Settings
from skewless.serving.events import EventForwarder
from tests.integration.serving.conftest import serving
from tests.servers.kafka import KafkaBroker
from tests.worlds.packages import store_at
from tests.worlds.windowed_feast import WindowedFeastProject, some

PUSH = "landings = PushSource(\n"
KAFKA = """from feast import KafkaSource
from feast.data_format import JsonFormat

landings = KafkaSource(
    timestamp_field="landed_at", topic="%s", kafka_bootstrap_servers="%s",
    message_format=JsonFormat(schema_json=""),
"""


@pytest.fixture
def topic(windowed: WindowedFeastProject, kafka: KafkaBroker) -> str:
    """The project's source, made a topic."""
    name = windowed.project.applied.plan.project
    kafka.make(name, 1)
    path = windowed.repo / "definitions.py"
    text = path.read_text()
    assert PUSH in text
    path.write_text(text.replace(PUSH, KAFKA % (name, kafka.bootstrap)))
    windowed.project.apply()
    windowed.build()
    return name


@pytest.mark.usefixtures("topic")
def test_events_go_to_the_topic(windowed: WindowedFeastProject) -> None:
    rows = some(5, windowed.now_us())
    with serving(windowed, windowed.project.redis_url) as front:
        status, _, text = front.post("/events/landings", json.dumps({"events": rows}).encode())
    assert (status, json.loads(text)) == (202, {"accepted_for": 5, "source": "landings", "log": "best_effort"})
    windowed.work(5)
    assert windowed.worker.counts.accepted == 5


@pytest.mark.usefixtures("topic")
def test_without_the_connector_the_reason_is_said(
    windowed: WindowedFeastProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skewless.infra.platform.host.plugins._entry_points", lambda *_: EntryPoints())
    with serving(windowed, windowed.project.redis_url) as front:
        status, _, text = front.post("/events/landings", b'{"a": 1}')
    assert (status, json.loads(text)["error"]["fix"]) == (
        500,
        "pip install 'skewless[kafka]', or the package that registers it",
    )


@pytest.mark.usefixtures("topic")
def test_settings_of_the_client_that_cannot_be_read_are_said(windowed: WindowedFeastProject) -> None:
    state = windowed.project.state
    events = EventForwarder(state, "redis://x", store_at(state / "packages"), Settings(kafka="[]"))
    with pytest.raises(DefinitionError, match="setting 'kafka': is not a JSON object"):
        events._open(events.source("landings"), "best_effort")
