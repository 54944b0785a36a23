"""Commands of a project under the eyes of ``kills``, and what each of them must have done in the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from skewless import ManualClock, Project, workspace
from skewless.infra.ingest.materialization.latest_rows import BACKFILLS
from skewless.infra.ingest.streams import importing
from skewless.infra.models.packages.signing import SIGNATURE
from skewless.infra.platform.storage.documents import Documents, Records
from skewless.infra.platform.storage.schema import KEYS, count_rows
from skewless.infra.reads.online.private_server import PrivateServer
from skewless.infra.reads.online.redis_store import RedisWriter
from skewless.infra.records.outcomes.log import outcome_spool
from skewless.operations.state.bundle import digest_of
from skewless.operations.state.housekeeping import run_housekeeping
from skewless.training import dataset_files
from skewless_export.export import export as export_model
from tests.nightly.reliability.command_answers import (
    adopted,
    applied,
    backed_up,
    backup_of,
    bundled,
    champion,
    dataset_of,
    dataset_rows,
    exported,
    features,
    forgotten,
    merged,
    needed_only,
    outcomes,
    restored,
    restored_names,
    rows_of_logs,
    see_all_or_nothing,
    see_bundle,
    see_export,
    see_origins,
    see_truth,
    signed,
    traffic,
    written_records,
)
from tests.reliability.kills import Steps
from tests.worlds.addresses import all_tables, replace_tables
from tests.worlds.edits import edit
from tests.worlds.erasures import ERASED, NOW, delete_in_sources, fill, name_users, write_last_visits

Answer = Any
Stage = Callable[[Project], object]
USES_FEAST = True  # and its pandas
_RETIRED_US = 2 * 86_400_000_000  # longer than views stay online


@dataclass(frozen=True, kw_only=True)
class KilledCommand:
    """A command, and what it reads at the end.

    Args:
        stage: the name of the stage before it.
        run: the command.
        read: returns what does not depend on kills.
        see: checks what may be seen after a kill, before anything else.
        rest: the command that does the rest; None: the same.
    """

    stage: str
    run: Stage
    read: Callable[[Project], Answer]
    see: Stage = lambda _: None
    rest: Stage | None = None


def backup(project: Project) -> None:
    """Copy a project beside it."""
    target = backup_of(project)
    if not target.exists():
        project.backup(target)


def name_others(project: Project) -> None:
    """Let rows of shops name the entity, and fill the project; then delete the entity in all sources."""
    name_users(project.repo, (ERASED, ERASED, "ann"))
    fill(project)
    delete_in_sources(project.repo)
    write_last_visits(project.repo, (None, None, "ann"))


def interrupt(project: Project) -> None:
    """Let the next run write the rows of shops again, as an interrupted erasure does."""
    view = next(view for view in project.needed.plan.views if view.name == "last_visits")
    Documents(project.state.database, BACKFILLS).put(view.partition, {})


def erase(project: Project) -> None:
    """Erase the entity; the receipt is of the latest record."""
    receipt = project.erase({"user": ERASED})
    (_, record), *_ = Records(project.state.database, "erasures").read_latest_first("project", 1)
    assert (record["digest"], receipt.error) == (receipt.digest, None)


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
    project.backfill()  # a generation of states is not needed any more, a minute later


def fall_behind(project: Project) -> None:
    """Restore the database to the state before a run and outcomes."""
    tables = all_tables(project.state)
    project.materialize()
    give_outcomes(project)
    outcome_spool(project.state).ship()
    replace_tables(project.state, tables)


def change(project: Project) -> None:
    """Edit the definitions: another window."""
    edit(project.repo, "time_window=timedelta(hours=6)", "time_window=timedelta(hours=5)")


def change_views(project: Project) -> None:
    """Apply other versions of all views, and let housekeeping see that nothing needs the former ones."""
    change(project)
    edit(project.repo, 'Field(name="value", dtype=Float64)', 'Field(name="value", dtype=Float32)')
    edit(project.repo, "import Float64", "import Float32, Float64")
    run_housekeeping(project)
    project.apply()
    project.refresh()
    project.materialize()
    project.backfill()
    run_housekeeping(project)


def retire(project: Project) -> None:
    """Compact logs, and delete the views and generations that nothing needs, some days later."""
    clock = project.clock
    assert isinstance(clock, ManualClock)
    clock.set(NOW + _RETIRED_US)
    run_housekeeping(project)
    clock.set(NOW)


def need_again(project: Project) -> None:
    """Apply the former versions of the views again."""
    edit(project.repo, "time_window=timedelta(hours=5)", "time_window=timedelta(hours=6)")
    edit(project.repo, 'Field(name="value", dtype=Float32)', 'Field(name="value", dtype=Float64)')
    project.apply()
    project.refresh()
    see_truth(project)
    project.materialize()
    project.backfill()


def take_signature(project: Project) -> None:
    """Make the package one of a release that did not sign."""
    folder = project.packages.version_folder("both", "000001")
    (folder / SIGNATURE).unlink()
    project.packages.register("both", "000001", project.packages.upload("both", folder))


def bundle(project: Project) -> None:
    """Write a bundle into the folder of the project."""
    if not (project.repo / "bundle").exists():
        project.bundle(project.repo / "bundle")


def forget_version(project: Project) -> None:
    """Keep a bundle of a version that the project does not have."""
    bundle(project)
    shutil.rmtree(project.state.folder / "packages/both")
    Documents(project.state.database, "package").delete("both/000001")


def adopt(project: Project) -> None:
    """Adopt the version of the bundle."""
    project.adopt(project.repo / "bundle", "both", digest=digest_of(project.repo / "bundle"))


def lose(project: Project) -> None:
    """Keep a backup of the project in its folder, and nothing else."""
    project.backup(project.repo / "kept")
    project.private.stop()
    project.close()
    state = project.state
    for name in KEYS:
        state.database.execute(f"DELETE FROM {name}")
    state.storage.delete([item.name for item in state.storage.list_objects("")])
    state.database.close()
    for path in state.folder.iterdir():
        if path.name != "clock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def restore(project: Project) -> None:
    """Restore the backup, unless it was done before the kill."""
    if not any(count_rows(project.state.database).values()):
        project.restore(project.repo / "kept")


def write_dataset(project: Project) -> None:
    """Write a dataset of several parts."""
    project.dataset(project.repo / "data/labels.parquet", "visits", dataset_of(project), time="at")


def export(project: Project) -> None:
    """Export the version."""
    if not (project.repo / "export").exists():
        export_model(project, "both", to="table", out=project.repo / "export")


def train_again(project: Project) -> None:
    """Train a second and a third version, which become champion."""
    project.train("both")
    project.train("both")


def roll_back(project: Project) -> None:
    """Go back from the third version to the second; a person who sees the third one does it again."""
    if project.store.aliases.get("both", "champion") == "000003":
        project.rollback("both")


def promote(project: Project) -> None:
    """Promote the third version."""
    project.promote("both", "000003")


def write_records(project: Project) -> None:
    """Write a list, an API key and an approval."""
    project.lists.set("blocked", ["ann", "bob"], reason="a test")
    if not project.keys.list():
        project.keys.add("web")
    project.approve("both", by="ann", reason="a test")


STAGES: Mapping[str, tuple[str | None, Stage]] = {
    "written": (None, lambda _: None),
    "applied": ("written", lambda project: project.apply()),
    "imported": ("applied", lambda project: project.import_events()),
    "built": ("imported", lambda project: project.backfill()),
    "filled": ("built", lambda project: project.materialize()),
    "behind": ("built", fall_behind),
    "changed": ("filled", change),
    "named": ("written", name_others),
    "interrupted": ("named", interrupt),
    "without": ("filled", lambda project: delete_in_sources(project.repo)),
    "logged": ("filled", log_outcomes),
    "trained": ("filled", lambda project: project.train("both")),
    "unneeded": ("filled", change_views),
    "unsigned": ("trained", take_signature),
    "forgotten": ("trained", forget_version),
    "lost": ("trained", lose),
    "thrice": ("trained", train_again),
    "back": ("thrice", roll_back),
}
COMMANDS: Mapping[str, KilledCommand] = {
    "apply": KilledCommand(stage="written", run=lambda project: project.apply(), read=applied),
    "apply a change": KilledCommand(stage="changed", run=lambda project: project.apply(), read=applied),
    "import": KilledCommand(stage="applied", run=lambda project: project.import_events(), read=rows_of_logs),
    "backfill": KilledCommand(stage="imported", run=lambda project: project.backfill(), read=rows_of_logs),
    "materialize": KilledCommand(
        stage="built", run=lambda project: project.materialize(), read=features, see=see_truth
    ),
    "feedback": KilledCommand(stage="filled", run=give_outcomes, read=outcomes),
    "housekeeping": KilledCommand(stage="logged", run=retire, read=merged),
    "train": KilledCommand(stage="filled", run=lambda project: project.train("both"), read=champion),
    "backup": KilledCommand(stage="trained", run=backup, read=backed_up),
    "erase": KilledCommand(stage="without", run=erase, read=forgotten),
    "erase a name": KilledCommand(stage="named", run=erase, read=restored_names),
    "erase after an interruption": KilledCommand(stage="interrupted", run=erase, read=restored_names),
    "retire": KilledCommand(stage="unneeded", run=retire, read=needed_only, see=see_truth),
    "retire what is needed again": KilledCommand(stage="unneeded", run=retire, rest=need_again, read=features),
    "sign": KilledCommand(stage="unsigned", run=lambda project: project.sign(), read=signed),
    "bundle": KilledCommand(stage="trained", run=bundle, read=bundled, see=see_bundle),
    "adopt": KilledCommand(stage="forgotten", run=adopt, read=adopted, see=see_origins),
    "restore": KilledCommand(stage="lost", run=restore, read=restored, see=see_all_or_nothing),
    "dataset": KilledCommand(stage="filled", run=write_dataset, read=dataset_rows),
    "export": KilledCommand(stage="trained", run=export, read=exported, see=see_export),
    "rollback": KilledCommand(stage="thrice", run=roll_back, read=traffic),
    "promote": KilledCommand(stage="back", run=promote, read=traffic),
    "recover": KilledCommand(stage="behind", run=lambda project: project.recover(), read=rows_of_logs),
    "lists, keys, approve": KilledCommand(stage="trained", run=write_records, read=written_records),
}


def hasten() -> None:
    """Stop the clock of projects, and make batches of an import small, in this process."""
    workspace.open_clock = lambda setting: ManualClock(NOW)  # type: ignore[attr-defined]  # noqa: ARG005
    importing.BATCH_ROWS = 150
    dataset_files.PART_BYTES = dataset_files.SEARCH_BYTES = 1
    dataset_files.LEAST_ROWS = 150


def act(steps: Steps, order: dict[str, str]) -> None:
    """Run one command."""
    hasten()
    with Project(order["repo"]) as project:
        steps.watch(project.repo.parent)  # also what a command writes beside the state
        steps.wrap_copies(project.repo.parent)
        steps.wrap(RedisWriter, "remove", lambda _, keys, *__: "online-delete" if keys else "")
        for name in ("replace", "put", "set_markers", "publish"):
            steps.wrap(RedisWriter, name, lambda *_, name=name: f"online-{name}")
        steps.wrap(PrivateServer, "rewrite_file", lambda *_: "rewrite-file")
        COMMANDS[order["command"]].run(project)
