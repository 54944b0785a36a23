"""Commands of a project under the eyes of ``kills``, and what each of them must have done in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless import ManualClock, Project, workspace
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.log_columns import INGEST, KNOWN_AT, RUN
from skewless.infra.log.partition_log import PartitionLog
from skewless.infra.log.readers import forget_readers
from skewless.infra.online.private_server import PrivateServer
from skewless.infra.online.redis_store import RedisWriter
from skewless.infra.outcomes.log import OutcomeLog, outcome_spool
from skewless.infra.packages.package import open_package
from skewless.infra.streams import importing
from skewless.operations.housekeeping import run_housekeeping
from tests.reliability.kills import Steps
from tests.worlds.edits import edit
from tests.worlds.erasures import ERASED, NOW, delete_in_sources, values

LATER = 2**62
_LOGS = ("log", "predictions", "outcomes", "staging")
Answer = Any
Stage = Callable[[Project], object]


@dataclass(frozen=True, kw_only=True)
class KilledCommand:
    """A command, and what it reads at the end.

    Args:
        stage: the name of the stage before it.
        run: the command.
        read: returns what does not depend on kills.
    """

    stage: str
    run: Stage
    read: Callable[[Project], Answer]


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
    return rows, {(name, segment.first, segment.last) for name, segment in segments}


def backup(project: Project) -> None:
    """Copy a project beside it."""
    target = backup_of(project)
    if not target.exists():
        project.backup(target)


def backup_of(project: Project) -> Path:
    """Return the folder of the backup."""
    return project.repo.with_name(f"{project.repo.name}-backup")


def backed_up(project: Project) -> Answer:
    """Return the files of the backup and the rows that it says that it has."""
    folder = backup_of(project)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert not folder.with_name(f"{folder.name}.partial").exists()
    return {name for name in files if not name.startswith("files/log/")}, rows_of_logs(project)


def give_outcomes(project: Project, start: int = 0) -> None:
    """Give the outcomes of some predictions in a table."""
    path = project.repo / f"outcomes-{start}.parquet"
    ids, label = [f"p{start + i}" for i in range(4)], [float(i % 2) for i in range(4)]
    pq.write_table(pa.table({"prediction_id": ids, "label": label}), path)
    project.feedback(path)


def log_outcomes(project: Project) -> None:
    """Give outcomes several times, so that their log has segments to merge."""
    for i in range(4):
        give_outcomes(project, 4 * i)


def change(project: Project) -> None:
    """Edit the definitions: another window."""
    edit(project.repo, "time_window=timedelta(hours=6)", "time_window=timedelta(hours=5)")


STAGES: Mapping[str, tuple[str | None, Stage]] = {
    "written": (None, lambda _: None),
    "applied": ("written", lambda project: project.apply()),
    "imported": ("applied", lambda project: project.import_events()),
    "built": ("imported", lambda project: project.backfill()),
    "filled": ("built", lambda project: project.materialize()),
    "changed": ("filled", change),
    "without": ("filled", lambda project: delete_in_sources(project.repo)),
    "logged": ("filled", log_outcomes),
    "trained": ("filled", lambda project: project.train("both")),
}
COMMANDS: Mapping[str, KilledCommand] = {
    "apply": KilledCommand(stage="written", run=lambda project: project.apply(), read=applied),
    "apply a change": KilledCommand(stage="changed", run=lambda project: project.apply(), read=applied),
    "import": KilledCommand(stage="applied", run=lambda project: project.import_events(), read=rows_of_logs),
    "backfill": KilledCommand(stage="imported", run=lambda project: project.backfill(), read=rows_of_logs),
    "materialize": KilledCommand(stage="built", run=lambda project: project.materialize(), read=features),
    "feedback": KilledCommand(stage="filled", run=give_outcomes, read=outcomes),
    "housekeeping": KilledCommand(stage="logged", run=run_housekeeping, read=merged),
    "train": KilledCommand(stage="filled", run=lambda project: project.train("both"), read=champion),
    "backup": KilledCommand(stage="trained", run=backup, read=backed_up),
    "erase": KilledCommand(
        stage="without", run=lambda project: project.erase({"user": ERASED}), read=lambda p: values(p, is_short=True)
    ),
}


def hasten() -> None:
    """Stop the clock of projects, and make batches of an import small, in this process."""
    workspace.open_clock = lambda setting: ManualClock(NOW)  # type: ignore[attr-defined]  # noqa: ARG005
    importing.BATCH_ROWS = 150


def act(steps: Steps, order: dict[str, str]) -> None:
    """Run one command."""
    hasten()
    with Project(order["repo"]) as project:
        steps.watch(project.state.folder)
        for name in ("remove", "replace", "put", "set_markers", "publish"):
            steps.wrap(RedisWriter, name, lambda *_, name=name: f"online-{name}")
        steps.wrap(PrivateServer, "rewrite_file", lambda *_: "rewrite-file")
        COMMANDS[order["command"]].run(project)
