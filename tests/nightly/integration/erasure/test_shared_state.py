"""An erasure of a project whose state is in PostgreSQL and a bucket."""

from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from skewless import ManualClock, workspace
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.partition_log import PartitionLog
from skewless.project import Project
from tests.worlds.erasures import ERASED, NOW, delete_in_sources, fill, values, write_repo


def test_objects_and_their_copies_are_gone(
    tmp_path: Path, server_url: str, postgres_url: str, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "open_clock", lambda _setting: ManualClock(NOW))
    name = f"shared_{uuid.uuid4().hex[:8]}"
    settings = f"redis_url: {server_url}\ndatabase_url: '{postgres_url}'\nstorage_url: '{bucket_url}'\n"
    repo, twin = write_repo(tmp_path / "p", name, settings=settings), write_repo(tmp_path / "twin", f"{name}_twin")
    delete_in_sources(twin)
    with Project(repo) as project, Project(twin, redis_url=server_url) as other:
        fill(project)
        fill(other)
        catalog, storage = Catalog(project.state.database), project.state.storage
        old = [item.stored for part in catalog.partitions() for item in catalog.segments(part)]
        copies = [storage.local_path(stored) for stored in old]
        delete_in_sources(repo)
        # This process has read the files, so they wait for it; with another one, they are deleted at once.
        receipt = project.erase({"user": ERASED})
        assert receipt.waiting == len(old) - receipt.objects
        assert values(project, is_short=True) == values(other, is_short=True)
        new = [item.stored for part in catalog.partitions() for item in catalog.segments(part)]
        assert {stored.name for stored in old}.isdisjoint(stored.name for stored in new)
        for part in catalog.partitions():
            assert all(ERASED not in str(pq.read_table(file)) for file in PartitionLog(project.state, part).files())
        waiting = catalog.list_removed()
        for stored, path in zip(old, copies, strict=True):
            assert path.exists() == (stored.name in waiting)
            storage.delete_copy(stored)
            assert not path.exists()
        assert ERASED.encode() not in b"".join(storage.local_path(stored).read_bytes() for stored in new)
