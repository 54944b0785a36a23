"""An erasure deletes messages of an entity from streams on a cluster, which has each partition on one of its nodes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from skewless.infra.ingest.streams.redis_link import RedisLink
from skewless.project import Project
from tests.servers.cluster import Cluster
from tests.worlds.erasure_doors import list_streams, send
from tests.worlds.erasures import ERASED, delete_in_sources, fill, write_repo


def test_others_stay(three_nodes: Cluster, tmp_path: Path) -> None:
    repo = write_repo(tmp_path / "p", "on_cluster", settings=f"redis_url: {three_nodes.url}\nstream_partitions: 2\n")
    with Project(repo) as project, closing(RedisLink(three_nodes.url, 10.0)) as link:
        fill(project)
        send(project, "s", 8)
        project.stream(until_idle=True)
        send(project, "w", 8)
        client = link.client()
        before = {each: client.execute_command("XRANGE", each, "-", "+") for each in list_streams(project, client)}
        assert len(before) == 2
        delete_in_sources(repo)
        assert project.erase({"user": ERASED}).messages == 8
        for stream, entries in before.items():
            kept = [entry for entry in entries if ERASED.encode() not in entry[1][b"e"]]
            assert client.execute_command("XRANGE", stream, "-", "+") == kept
        (counts,) = project.stream(until_idle=True)
        assert (counts.read, counts.accepted, counts.lag) == (4, 4, 0)
