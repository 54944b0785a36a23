"""Events are sent as time goes by, waited for until they are applied, and accounted for by the log."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skewless import Project
from skewless.contract.clock import ManualClock
from skewless.contract.errors import PlaceError
from skewless.infra.ingest.streams.backfill import Backfiller
from skewless.infra.ingest.streams.worker import Worker
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.infra.reads.online.redis_store import RedisWriter
from skewless_demo.feed import Feed
from tests.worlds.windowed_types import write_repo

HOUR = 3_600_000_000
START = 400_000 * HOUR


def nothing() -> None:
    """Find nothing wrong."""


def event(number: int, at: int) -> bytes:
    return json.dumps({"carrier": "UA", "arr_delay": 5.0, "big": True, "ref": f"e{number}", "landed_at": at}).encode()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    repo = write_repo(tmp_path / "air")
    live = repo / "data" / "live"
    live.mkdir(parents=True)
    at = [START + number * HOUR // 4 for number in range(8)]
    payloads = [event(number, at[number]) for number in range(8)]
    payloads[2] = event(1, at[1])  # comes twice
    payloads[5] = b'{"carrier":'
    payloads[6] = event(6, START)  # comes late
    messages = {"at": pa.array(at, pa.timestamp("us", "UTC")), "key": ["UA"] * 8, "payload": payloads}
    pq.write_table(pa.table(messages), live / "all.parquet")
    project = Project(repo)
    project.__dict__["clock"] = ManualClock(START)
    project.apply()
    yield project
    project.close()
    PrivateServer(project.state.folder).stop()


@pytest.fixture
def working(project: Project) -> Iterator[None]:
    """A worker of the project's source, in a thread."""
    (source,) = project.streams.sources()
    store, stop = RedisWriter(project.redis_url), threading.Event()
    Backfiller(streams=project.streams, store=store).build_missing(project.applied.plan.windows)
    streams = project.streams
    worker = Worker(
        streams=streams, source=source, writer=streams.writer(source, store), open_stream=streams.open_stream(source)
    )
    thread = threading.Thread(target=worker.run, args=(lambda: not stop.is_set(),))
    thread.start()
    yield
    stop.set()
    thread.join()
    store.close()


@pytest.mark.usefixtures("working")
def test_what_is_due_is_sent_applied_and_accounted_for(project: Project) -> None:
    feed = Feed.of(project.streams, project.repo)
    feed.wait(nothing)  # nothing was sent: nothing to wait for
    for hours, sent in ((0, 1), (1, 4), (2, 3), (3, 0)):
        project.clock.set(START + hours * HOUR)  # type: ignore[attr-defined]  # a manual clock
        assert feed.send(START + hours * HOUR) == sent
        feed.wait(nothing)
        rows = sum(taken.accepted + taken.reasons.total() for taken in feed.results())
        assert rows == feed.feeds[0].sent - (hours > 0)
    (taken,) = feed.results()
    assert (taken.sent, taken.accepted, taken.late, taken.duplicates) == (8, 6, 1, 1)
    assert dict(taken.reasons) == {"the message is not a JSON object": 1}
    assert taken.line() == "landings: 8 sent, 6 accepted (1 of them late), 1 duplicates dropped, 1 quarantined"
    feed.close()


def test_waiting_for_nobody_ends(project: Project) -> None:
    feed = Feed.of(project.streams, project.repo)
    assert feed
    feed.send(START)
    with pytest.raises(PlaceError, match="does not apply the events in time"):
        feed.wait(nothing, seconds=0.2)
    feed.close()


def test_a_project_without_messages_has_nothing_to_send(project: Project) -> None:
    (project.repo / "data" / "live" / "all.parquet").unlink()
    (project.repo / "data" / "live").rmdir()
    feed = Feed.of(project.streams, project.repo)
    assert not feed
    assert feed.send(START + 9 * HOUR) == 0
    feed.wait(nothing)
    feed.close()
