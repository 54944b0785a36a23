"""The upgrade of a project's state: the schema of its database, and what older releases kept in files.

The logs of a release before schema 2 were files that no table listed.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from skewless.contract.errors import ConflictError, StoreError
from skewless.contract.plain_record import PlainRecord
from skewless.infra.jobs.run import RunId
from skewless.infra.log.catalog import Catalog
from skewless.infra.log.runs import Coverage, add_coverage
from skewless.infra.storage.database import Database
from skewless.infra.storage.documents import Documents, Records
from skewless.infra.storage.durable import make_folder
from skewless.infra.storage.project_state import OLD_PLAN_FILE, ProjectState
from skewless.infra.storage.schema import STEPS
from skewless.operations import old_logs

_OLD = "before-upgrade"
_SKIPPED_ROWS = "left_out"
_ALIVE_S = 10.0
_LOGS_SCHEMA = 3  # the first one with the catalog of the logs
_PROVEN = "proven_files"
_OLD_LOCKS = (
    *(f"{name}.lock" for name in ("plans", "views", "wanted", "api_keys", "parity", "freshness", "proven", "tracking")),
    *("materialize.lock", "windows/*.lock", "scheduler/.lock", "drift/*.lock", "alerts/*.lock"),
    *("packages/*/.traffic.lock", "packages/*/.aliases.lock", "packages/*/.decisions.lock"),
    ".trusted_keys.lock",
    *old_logs.LOCKS,
)
_OLD_FOLDERS = (
    "plans",
    "runs",
    "scheduler",
    "progress",
    _SKIPPED_ROWS,
    "drift",
    "alerts",
    "vitals",
    "rollouts",
    "processes",
    *old_logs.FOLDERS,
)


@dataclass(frozen=True, kw_only=True)
class UpgradeReport(PlainRecord):
    """The changes of an upgrade.

    Args:
        schema_before, schema: of the database; 0: it had no tables.
        imported: number of imported values per kind of file.
        folder: with the imported files; None: there were none.
    """

    schema_before: int
    schema: int = len(STEPS)
    imported: Mapping[str, int] = field(default_factory=dict)
    folder: str | None = None


def upgrade_state(state: ProjectState, *, dry_run: bool = False) -> UpgradeReport:
    """Upgrade the schema of the database, and import the logs and small files of older releases into it.

    Everything is imported in one transaction, with the schema. Then the small files move to the folder
    ``before-upgrade``; the logs' data stays where it is, and what was merged long ago is deleted. A killed upgrade is
    run again: it imports the same values, which changes nothing, and moves the other files.

    Raises:
        ConflictError: a process of the project is running.
        StoreError: a file is missing or corrupt, or the database failed; nothing was imported.
    """
    _reject_running(state.folder)
    database = state.unchecked_database
    before = database.schema_version()
    files = [(kind, path) for kind in _KINDS for path in sorted(state.folder.glob(kind.pattern))]
    has_catalog = before >= _LOGS_SCHEMA and bool(Catalog(database).partitions())
    logs = [] if has_catalog else old_logs.read_old_logs(state, dry_run=dry_run)
    if not dry_run:
        database.upgrade(lambda: _import_all(files, logs, database, state.folder))
        if files or logs:
            old_logs.remove_leftovers(state)
        _move(state.folder, [path for _, path in files])
    folder = str(state / _OLD) if files else None
    return UpgradeReport(schema_before=before, imported=_count(files, logs), folder=folder)


Load = Callable[[Database, Path, Path], None]  # stores the content of a file, given also by its path below the folder


class _FileKind(NamedTuple):
    """The files of one kind: a plural noun for the report, and a pattern of their paths below the state folder."""

    noun: str
    pattern: str
    load: Load


def _document(kind: str, name: str, prefix: str = "") -> Load:
    def load(database: Database, path: Path, relative: Path) -> None:
        Documents(database, kind).create(_name(name, relative, prefix), _read(path))

    return load


def _record(kind: str, name: str) -> Load:
    def load(database: Database, path: Path, relative: Path) -> None:
        _add_record(database, kind, _name(name, relative), int(path.stem), _read(path))

    return load


def _name(pattern: str, path: Path, prefix: str = "") -> str:
    """Return a name in the database: a pattern of the folders of a path, and of its file without a prefix."""
    return pattern.format(*path.parts[:-1], file=path.stem.removeprefix(prefix))


def _add_record(database: Database, kind: str, name: str, number: int, body: Any) -> None:  # noqa: ANN401 - any JSON
    records = Records(database, kind)
    if records.read(name, number) is None:
        records.append(name, number, body)


def _load_plan(database: Database, path: Path, _: Path) -> None:
    """Store the applied plan, if it is not the latest of the history: older releases had no history."""
    records, body = Records(database, "plan"), _read(path)
    latest = records.latest("applied")
    if latest is None or latest[1] != body:
        records.add("applied", body)


def _load_drift(database: Database, path: Path, _: Path) -> None:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            body = json.loads(line)
        except ValueError:
            continue  # the incomplete line of a killed append
        _add_record(database, "drift_check", path.stem, number, body)


def _load_materialization(database: Database, path: Path, _: Path) -> None:
    run_id, start = int(path.name.split(".")[0]), _read(path)
    end_path = path.with_name(path.name.replace(".start.", ".end."))
    end = _read(end_path) if end_path.exists() else None
    database.execute(
        "INSERT INTO materializations (run_id, started_us, skew_us, ended_us) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (run_id) DO NOTHING",
        run_id,
        start["started_us"],
        start.get("skew_us", 0),
        end and end["ended_us"],
    )
    if end:
        covers = {partition: Coverage(**part) for partition, part in end["covers"].items()}
        add_coverage(database, run_id, covers, end["ended_us"])


def _load_job_run(database: Database, path: Path, _: Path) -> None:
    run_id, start = RunId.parse(f"{path.parent.name}@{path.stem}"), _read(path)
    end_path = path.with_name(f"{path.stem}.end.json")
    end = _read(end_path) if end_path.exists() else None
    database.execute(
        "INSERT INTO job_runs (job, tick_us, attempt, state, start_body, end_body) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        run_id.job,
        run_id.tick_us,
        run_id.attempt,
        end["state"] if end else "running",
        json.dumps(start),
        end and json.dumps(end),
    )


def _load_term(database: Database, path: Path, _: Path) -> None:
    token, body = int(path.stem), _read(path)
    _add_record(database, "leader_term", "scheduler", token, body)
    # The next leader's token must be greater.
    database.execute(
        "INSERT INTO leases (name, holder, token, until_us) VALUES ('scheduler', ?, ?, 0) ON CONFLICT (name) DO UPDATE "
        "SET token = CASE WHEN leases.token < excluded.token THEN excluded.token ELSE leases.token END",
        str(body["holder"]),
        token,
    )


def _load_trusted_keys(database: Database, path: Path, _: Path) -> None:
    for key in path.read_text(encoding="ascii", errors="replace").split():
        Documents(database, "trusted_key").create(key, {})


def _load_known_job(database: Database, path: Path, _: Path) -> None:
    job = RunId.parse(f"{path.parent.name}@20000101T000000Z").job
    Documents(database, "known_job").create(job, _read(path))


def _skip(_database: Database, _path: Path, _relative: Path) -> None:
    """Only move the file: its content is created again, or another file loads it."""


_KINDS = (
    _FileKind("applied plans", "plans/*.json", _record("plan", "applied")),
    _FileKind("applied plans", OLD_PLAN_FILE, _load_plan),
    _FileKind("versions of views", "views.json", _document("view_lifecycles", "project")),
    _FileKind("target versions", "wanted.json", _document("target_versions", "project")),
    _FileKind("moves of aliases", "packages/*/aliases/*/*.json", _record("alias_move", "{1}/{3}")),
    _FileKind("traffic policies", "packages/*/traffic/*.json", _record("traffic_policy", "{1}")),
    _FileKind("decisions", "packages/*/decisions/*.json", _record("decision", "{1}")),
    _FileKind("files of API keys", "api_keys.json", _document("api_keys", "project")),
    _FileKind("counts of rollouts", "vitals/*.json", _document("rollout_counts", "{file}")),
    _FileKind("counts of rollouts", "rollouts/*/vitals/*.json", _document("earlier_rollout_counts", "{1}/{file}")),
    _FileKind("files of alerts", "alerts/alerts.json", _document("alerts", "project")),
    _FileKind("verdicts", "parity.json", _document("parity_verdicts", "project")),
    _FileKind("verdicts", "freshness.json", _document("freshness", "project")),
    _FileKind("verdicts", "proven.json", _document(_PROVEN, "project")),
    _FileKind("series of drift checks", "drift/*.jsonl", _load_drift),
    _FileKind("passed labels", "validation/labels-*.json", _document("passed_labels", "{file}", "labels-")),
    _FileKind("materializations", "runs/*.start.json", _load_materialization),
    _FileKind("ends of materializations", "runs/*.end.json", _skip),
    _FileKind("terms of leaders", "scheduler/terms/*.json", _load_term),
    _FileKind("known jobs", "scheduler/runs/*/known.json", _load_known_job),
    _FileKind("runs of jobs", "scheduler/runs/*/[0-9]*[!d].json", _load_job_run),
    _FileKind("ends of runs", "scheduler/runs/*/*.end.json", _skip),
    _FileKind("requests", "scheduler/requests/*/*.json", _document("run_request", "{2}/{file}")),
    _FileKind("positions of sources", "progress/*.json", _document("read_progress", "{file}")),
    _FileKind("skipped rows", f"{_SKIPPED_ROWS}/*.json", _document("skipped_rows", "{file}")),
    _FileKind("generations of states", "windows/*-*.json", _document("generations", "{file}")),
    _FileKind("served sources", "windows/*.served", _document("served_source", "{file}")),
    _FileKind("imports", "log/events/*/import-*.json", _document("import", "{2}/{file}", "import-")),
    _FileKind("files of trusted keys", "trusted_keys", _load_trusted_keys),
    _FileKind("heartbeats", "processes/*.json", _skip),
    *(_FileKind("descriptions of logs", pattern, _skip) for pattern in old_logs.MARKS),
)


def _import_all(
    files: list[tuple[_FileKind, Path]], logs: list[old_logs.OldLog], database: Database, folder: Path
) -> None:
    for name, body in Documents(database, "process").list_all().items():
        if (files or logs) and time.time() - body["beat_s"] < _ALIVE_S:
            raise _running_error(name)
    for kind, path in files:
        try:
            kind.load(database, path, path.relative_to(folder))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _corrupt_error(path) from error
    proven, catalog = Documents(database, _PROVEN), Catalog(database)
    names = (proven.get("project") or {"files": []})["files"]
    for log in logs:
        log.add_to(catalog, names)
    proven.delete("project")  # the catalog has it now


def _count(files: list[tuple[_FileKind, Path]], logs: list[old_logs.OldLog]) -> dict[str, int]:
    counts = Counter(kind.noun for kind, _ in files if kind.load is not _skip)
    segments = sum(len(log.segments) for log in logs)
    return counts | ({"segments of logs": segments} if segments else {})


def _move(folder: Path, paths: list[Path]) -> None:
    """Move imported files out of the way; the applied plan last, because it shows that the state is old."""
    for path in sorted(paths, key=lambda path: path.name == OLD_PLAN_FILE):
        target = folder / _OLD / path.relative_to(folder)
        make_folder(target.parent)
        path.replace(target)
    for pattern in _OLD_LOCKS:
        for lock in folder.glob(pattern):
            lock.unlink()
    for name in _OLD_FOLDERS:
        for place in (*sorted((folder / name).rglob("*"), reverse=True), folder / name):
            with suppress(OSError):  # another file of the user is in it, or it never existed
                place.rmdir()


def _read(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    try:
        text = path.read_bytes()
        return json.loads(text) if text else None
    except ValueError as error:
        raise _corrupt_error(path) from error


def _corrupt_error(path: Path) -> StoreError:
    return StoreError(f"file {path}", "is corrupt", fix="restore it, or move it out of the folder, then run again")


def _reject_running(folder: Path) -> None:
    """Reject an upgrade under a running process of the older release: it would write on to the old files."""
    for path in folder.glob("processes/*.json"):
        if time.time() - path.stat().st_mtime < _ALIVE_S:
            raise _running_error(path.stem)


def _running_error(name: str) -> ConflictError:
    problem = f"has a running {name.partition('-')[0]}"
    return ConflictError("project", problem, value=name, fix="stop it, then run again")
