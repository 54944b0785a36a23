"""What killed commands must have done in the end, and what may be seen of them until then."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow.parquet as pq

from skewless import Project
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.log_columns import INGEST, KNOWN_AT, RUN
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.readers import forget_readers
from skewless.infra.models.packages.package import open_package
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.storage.schema import KEYS, count_rows
from skewless.infra.reads.online.redis_store import RedisWriter
from skewless.infra.records.outcomes.log import OutcomeLog, outcome_spool
from skewless.operations.state.bundle import digest_of, load_bundle
from skewless.operations.state.housekeeping import run_housekeeping
from skewless_cloud import file_cache
from skewless_control_room.model_card import card
from skewless_export.export import _open_export
from tests.worlds.addresses import read_tables
from tests.worlds.erasures import ERASED, last_visits, values

LATER = 2**62
_LOGS = ("log", "predictions", "outcomes", "staging")
Answer = Any


def rows_of_logs(project: Project) -> Counter[str]:
    """Return all rows of all logs; without the times and numbers of runs, which differ from run to run."""
    spool = outcome_spool(project.state)
    spool.ship()
    rows = Counter[str]()
    for name in Catalog(project.state.database).partitions():
        log = PartitionLog(project.state, name)
        columns = [column for column in log.schema().names if column not in {INGEST, RUN, KNOWN_AT}]
        for part in log.read(columns=columns):
            rows.update(f"{name} {row}" for row in part.to_pylist())
    return rows


def features(project: Project) -> Answer:
    """Return some features of all users and shops, which are the same online and offline, and all logs."""
    assert project.parity(sample=100).ok
    return values(project, is_short=True), rows_of_logs(project)


def outcomes(project: Project) -> Answer:
    """Return the latest outcome of each prediction."""
    outcome_spool(project.state).ship()
    rows = OutcomeLog(project.state, project.connection).latest(LATER).to_pylist()
    return sorted((row["prediction_id"], row["label"]) for row in rows)


def applied(project: Project) -> Answer:
    """Return the applied plan, which is that of the definitions."""
    project.refresh()
    assert not project.plan().changes
    return project.applied.plan.hash


def champion(project: Project) -> Answer:
    """Return whether each version is complete, and the last one is champion."""
    store = project.store
    versions = store.packages.list_versions("both")
    assert all(open_package(store, "both", version).version == version for version in versions)
    assert store.aliases.get("both", "champion") == versions[-1]
    assert not list(project.state.folder.rglob(".new-*"))
    return None


def merged(project: Project) -> Answer:
    """Return all rows and the bounds of the segments; no object is left that no log has."""
    catalog, storage = Catalog(project.state.database), project.state.storage
    rows = rows_of_logs(project)
    run_housekeeping(project)
    forget_readers(project.state.database)
    catalog.delete_unread(storage)
    storage.delete([name for folder in _LOGS for name in catalog.find_orphans(storage, folder, LATER)])
    segments = [(name, segment) for name in catalog.partitions() for segment in catalog.segments(name)]
    for _, segment in segments:
        storage.verify(segment.stored)
    stored = {item.name for folder in _LOGS for item in storage.list_objects(folder)}
    assert stored == {segment.stored.name for _, segment in segments}
    check_keys(project)
    return rows, {(name, segment.first, segment.last) for name, segment in segments}


def backup_of(project: Project) -> Path:
    """Return the folder of the backup."""
    return project.repo.with_name(f"{project.repo.name}-backup")


def backed_up(project: Project) -> Answer:
    """Return the files of the backup and the rows that it says that it has."""
    folder = backup_of(project)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert not folder.with_name(f"{folder.name}.partial").exists()
    return {name for name in files if not name.startswith("files/log/")}, rows_of_logs(project)


def see_truth(project: Project) -> None:
    """See that a reader of the online store gets what the log says, or nothing, while a command is half done."""
    found = values(project, is_short=True)
    for name, online in found.items():
        if name.endswith(" online") and online[0] != "UNAVAILABLE":
            # What a run that has not ended has published is not known yet, and online already.
            sides = [found[f"{name.removesuffix(' online')} {side}"] for side in ("knowledge", "event_time")]
            assert online in sides, name


def online_keys(project: Project) -> Iterator[str]:
    """Yield all keys of the online store."""
    with closing(RedisWriter(project.redis_url)) as store:
        for client in store._servers.masters():
            yield from (key.decode() for key in client.scan_iter("sk:p:*"))


def check_keys(project: Project) -> None:
    """Check that the store has keys of needed views alone, and of their generations."""
    needed = project.needed.readers
    numbers = {
        f"{view.hash}.{item.number}"
        for view in project.needed.plan.windows
        for item in project.streams.generations.list_all(view)
    }
    for key in online_keys(project):
        version = key.split(":")[2]
        assert version.partition(".")[0] in needed, key
        assert "." not in version or version in numbers, key


def needed_only(project: Project) -> Answer:
    """Return the features; the store has keys of nothing else."""
    check_keys(project)
    return features(project)


def forgotten(project: Project) -> Answer:
    """Return the features of the others; no file has the text of the erased entity."""
    found = values(project, is_short=True)
    # This process and the killed one count as readers of the replaced files.
    project.state.database.execute("DELETE FROM leases WHERE name LIKE 'log reader %'")
    catalog = Catalog(project.state.database)
    catalog.delete_unread(project.state.storage)
    with patch.object(file_cache, "_IN_USE_S", 0):  # copies in use when the erasure was killed, an hour later
        project.state.storage.delete_unknown_copies(catalog.list_digests)
    assert not [key for key in online_keys(project) if ERASED in key]
    project.private.stop()
    project.state.database.close()
    files = [path for path in project.state.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [str(path) for path in files if ERASED.encode() in path.read_bytes()]
    assert ERASED not in str(read_tables(project.state, tuple(KEYS)))
    return found


def restored_names(project: Project) -> Answer:
    """Return the last visits of shops, which named the erased entity, too."""
    found = last_visits(project)
    assert ERASED not in str(found)
    return found, forgotten(project)


def signed(project: Project) -> Answer:
    """Return the versions, which another machine can open, too."""
    if project.state.storage_url is not None:
        shutil.rmtree(project.state.folder / "packages")
    return opened(project)


def opened(project: Project) -> Answer:
    """Return the versions; each can be opened."""
    versions = project.packages.list_versions("both")
    assert [open_package(project.store, "both", version).version for version in versions] == versions
    return versions


def adopted(project: Project) -> Answer:
    """Return the adopted version and its origin."""
    (version,) = opened(project)
    return card(project, "both", version).origin


def see_origins(project: Project) -> None:
    """See that each adopted version has its origin."""
    assert all(card(project, "both", version).origin for version in opened(project))


def restored(project: Project) -> Answer:
    """Return the rows of the logs and the versions, after the online store is filled again."""
    opened(project)
    for name in ("materialize", "backfill"):
        getattr(project, name)()
    return features(project)


def see_all_or_nothing(project: Project) -> None:
    """See that a database that was restored has all objects of its logs and all packages."""
    if any(count_rows(project.state.database).values()):
        for name in Catalog(project.state.database).partitions():
            for segment in Catalog(project.state.database).segments(name):
                project.state.storage.verify(segment.stored)
        assert opened(project)


def dataset_of(project: Project) -> Path:
    """Return the folder of the dataset."""
    return project.repo / "dataset"


def dataset_rows(project: Project) -> Answer:
    """Return the rows of the dataset in order."""
    return [row for path in sorted(dataset_of(project).glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def see_export(project: Project) -> None:
    """See that an export is not there, or is complete and signed."""
    if (folder := project.repo / "export").exists():
        _open_export(project, folder)


def exported(project: Project) -> Answer:
    """Return the files of the export."""
    _, files = _open_export(project, project.repo / "export")
    return {name: data for name, data in files.items() if name != "certificate.json"}


def see_bundle(project: Project) -> None:
    """See that a bundle is not there, or can be loaded."""
    if (folder := project.repo / "bundle").exists():
        with tempfile.TemporaryDirectory() as name:
            state = ProjectState(Path(name))
            load_bundle(state, folder, 7)
            state.database.close()


def bundled(project: Project) -> Answer:
    """Return the digest of the bundle."""
    see_bundle(project)
    return digest_of(project.repo / "bundle")


def traffic(project: Project) -> Answer:
    """Return the version that gets all traffic."""
    policy = project.store.traffic.get("both")
    holder = project.store.aliases.get("both", "champion")
    last = project.store.aliases.number("both", "champion") or 0
    # A policy does not count after a later move of the alias.
    assert policy is None or policy.moves < last - 1 or (policy.champion, policy.challenger) == (holder, None)
    return holder


def written_records(project: Project) -> Answer:
    """Return a list, the names of the API keys and the approvals of a version."""
    lists = [(each.name, each.number, tuple(each.values)) for each in project.lists.list()]
    keys = [key.name for key in project.keys.list()]
    return lists, keys, {each.by for each in project.store.approvals.read("both", "000001")}
