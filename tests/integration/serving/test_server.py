"""`skewless serve` takes events beside predictions, and lets go of the stream when it stops."""

from __future__ import annotations

import json
from pathlib import Path

from skewless.client import Client
from skewless.infra.online.redis_store import RedisWriter
from skewless.project import Project
from tests.feast.windows.world import landing
from tests.integration.errors.server import Server
from tests.projects import NOW, make_project

STREAM = """
from feast import PushSource, StreamFeatureView
from feast.aggregation import Aggregation

visits = PushSource(
    name="visits",
    batch_source=FileSource(path="data/visits.parquet", timestamp_field="landed_at"),
    tags={"skewless.columns": "card_id int64, arr_delay float64"},
)
card_now = StreamFeatureView(
    name="card_now",
    entities=[card],
    source=visits,
    timestamp_field="landed_at",
    aggregations=[Aggregation(column="arr_delay", function="sum", time_window=timedelta(hours=1), name="sum_1h")],
)
"""


def test_serve_takes_events(tmp_path: Path) -> None:
    repo = tmp_path / "p"
    make_project(repo)
    with (repo / "definitions.py").open("a") as file:
        file.write(STREAM)
    with Project(repo, clock=f"file:{repo}/.skewless/clock") as project:
        project.apply()
        server = Server.start(repo, SKEWLESS_PORT="0", SKEWLESS_CLOCK=f"file:{repo}/.skewless/clock")
        client = Client(server.url)
        assert client.send_events("visits", [landing(i, None, 1, NOW, card_id=i) for i in range(3)]) == 3
        said = server.ask("POST", "/push", b'{"push_source_name": "none", "df": {}}')
        assert (said[0], json.loads(said[2])["error"]["problem"]) == (400, "holds no event")
        client.close()
        server.stop()
        writer = RedisWriter(project.redis_url)
        worker = project.streams.worker(project.applied.plan.sources[0], writer)
        for _ in range(60):
            worker.step()
            if worker.tally.read == 3:
                break
        assert worker.tally.accepted == 3
        worker.close()
        writer.close()
        project.private.stop()
