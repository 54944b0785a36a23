"""The project: its plan, its processes, and the objects of its logs and packages."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from skewless.contract.clock import open_clock
from skewless.contract.errors import SkewlessError, StoreError
from skewless.contract.readable import duration_text, iso_text
from skewless.contract.render import count_text
from skewless.contract.settings import SHARED_SETTINGS, Settings
from skewless.infra.definitions.plans.applied_plan import AppliedPlan, read_applied
from skewless.infra.log.catalog import LOG_FOLDERS, Catalog
from skewless.infra.log.holes import check_holes
from skewless.infra.log.runs import RunLedger
from skewless.infra.log.spool import CORRUPT
from skewless.infra.log.stream_losses import StreamLosses
from skewless.infra.platform.host.processes import Process, read_processes
from skewless.infra.platform.storage.documents import Records
from skewless.infra.platform.storage.package_folder import PackageFolder
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.operations.audited import SETTINGS, show_settings
from skewless.operations.health.finding import CheckFinding, bad, doubt, from_error, good
from skewless.operations.health.server_status import read_server_problems
from skewless.operations.health.status import plan_state
from skewless.workspace import CONFIG_FILE

_COMMANDS = {"server": "serve", "stream": "stream", "scheduler": "scheduler"}
_SECTIONS = {"server": "serverdown", "stream": "streamdown", "scheduler": "schedulerwithoutleader"}
_PLAN_DELAY_S = 30.0
SILENT, REFUSED, LOG = "process_silent", "model_refused", "prediction_log"  # alerts


def check_plan(repo: Path, state: ProjectState) -> CheckFinding:
    """Return whether a plan is applied, and whether the definitions have changed since."""
    name = "plan"
    if not (repo / CONFIG_FILE).is_file():
        return doubt(
            name, f"{repo} is not a project", "name a project with --repo DIR, or start one with `skewless init DIR`"
        )
    try:
        applied = read_applied(state)
    except SkewlessError as error:
        return from_error(name, error)
    if applied is None:
        return doubt(name, "no plan is applied yet", "run `skewless apply`")
    return judge_plan(repo, state, applied)


def judge_plan(repo: Path, state: ProjectState, applied: AppliedPlan) -> CheckFinding:
    """Return whether the definitions or Feast's registry have changed since a plan was applied."""
    name = "plan"
    state_text = plan_state(repo, state, applied)
    detail = f"{applied.plan.hash}, {state_text}"
    if state_text.startswith("registry"):
        return bad(name, detail, "run `skewless plan` to see the difference, then `skewless apply`")
    if state_text.startswith("changed"):
        return doubt(name, detail, "run `skewless plan`, then `skewless apply`")
    return good(name, detail)


def check_processes(state: ProjectState) -> list[CheckFinding]:
    """Return for each process whether it sends heartbeats, has loaded the applied plan, and works."""
    try:
        return judge_processes(state, read_applied(state))
    except SkewlessError:
        return []  # the check of the plan reports it


def judge_processes(
    state: ProjectState, applied: AppliedPlan | None, *, now_us: int | None = None
) -> list[CheckFinding]:
    """Return for each process whether it sends heartbeats, has loaded the applied plan, and works.

    Args:
        now_us: by the project's clock, to return since when a process is silent.

    Raises:
        StoreError: the database is unavailable.
    """
    processes, now_s = read_processes(state), state.database.now_us() / 1e6
    plan_hash = "" if applied is None else applied.plan.hash
    findings = [_judge_process(item, plan_hash, now_s, now_us) for item in processes]
    running = any(item.kind == "stream" and not item.is_silent(now_s) for item in processes)
    if applied is not None and applied.plan.sources and not running:
        findings.append(
            doubt(
                "stream worker",
                "is not running: window features do not change",
                "start `skewless stream`",
                section="streamdown",
            )
        )
    return findings


def check_hosts(state: ProjectState, settings: Settings) -> Iterator[CheckFinding]:
    """Yield for each other host with a living process whether the settings that must be equal are those of this one."""
    if not state.is_shared or not state.database.exists():
        return
    try:
        now_s, own, records = state.database.now_us() / 1e6, show_settings(settings), Records(state.database, SETTINGS)
        hosts = {item.host for item in read_processes(state) if not item.is_silent(now_s)} - {socket.gethostname()}
        for host in sorted(hosts):
            name, latest = f"host {host}", records.latest(host)
            if latest is None:
                yield doubt(name, "has not recorded its settings", "run doctor again when its processes are ready")
            elif names := [item for item in SHARED_SETTINGS if own.get(item) != latest[1].get(item)]:
                fix = "set them equally on all hosts, then start the processes of the wrong host again"
                yield doubt(name, f"has other settings than this host: {', '.join(names)}", fix)
            else:
                yield good(name, "has the shared settings of this host")
    except StoreError as error:
        yield from_error("hosts", error)


def check_losses(state: ProjectState, settings: Settings) -> Iterator[CheckFinding]:
    """Yield which events an older copy of Redis has lost in the last week."""
    try:
        losses = StreamLosses(state.database).read_recent(open_clock(settings.clock).now_us())
    except SkewlessError as error:
        yield from_error("event streams", error)
        return
    for loss in losses:
        span = f"between {iso_text(loss.from_us)} and {iso_text(loss.until_us)}, after entry {loss.after}"
        yield doubt(
            f"event source {loss.source}",
            "Redis is an older copy or was emptied, so "
            f"events of partition {loss.partition} that it acknowledged {span}, may be lost",
            "send the events of that time again: an event with an id counts once",
        )


def check_server(url: str) -> list[CheckFinding]:
    """Return the problems that the server of this machine says itself, also while the database is down."""
    problems = read_server_problems(url)
    if not problems:
        return []
    return [doubt("server", "; ".join(f"{thing} {problem}" for thing, problem in problems.items()), "read its log")]


def _judge_process(item: Process, plan_hash: str, now_s: float, now_us: int | None) -> CheckFinding:
    name, section = f"{item.kind} {item.host} {item.pid}", _SECTIONS[item.kind]
    problems = [
        f"{problem.subject} {problem.text}" if problem.subject != name else problem.text
        for problem in find_problems(item, now_s)
    ]
    detail = "; ".join(problems)
    if item.is_silent(now_s):
        fix = f"end the process, then start `skewless {_COMMANDS[item.kind]}` again"
        finding = doubt(name, f"{detail}: it is dead or stuck", fix, section=section)
        since_us = None if now_us is None else now_us - int(item.silent_s(now_s) * 1e6)
        return replace(finding, is_urgent=True, since_us=since_us)
    if item.plan != plan_hash and time.time() - item.started_s > _PLAN_DELAY_S:
        return doubt(
            name,
            f"has loaded plan {item.plan or 'none'}, not the applied plan {plan_hash}",
            "read its log: event plan_not_loaded has the reason",
            section=section,
        )
    if problems:
        return doubt(name, detail, "read its log", section=section)
    return good(name, f"is alive, with plan {item.plan}")


class ProcessProblem(NamedTuple):
    """A problem of a process.

    Args:
        alert: the alert about it; empty: none.
        subject: of the alert: the process, or a version of a model.
    """

    alert: str
    subject: str
    text: str


def find_problems(item: Process, now_s: float) -> Iterator[ProcessProblem]:
    """Yield the problems that a process reports in its heartbeats, or that it sends none."""
    name = f"{item.kind} {item.host} {item.pid}"
    if item.is_silent(now_s):
        yield ProcessProblem(SILENT, name, f"sent no heartbeat for {duration_text(item.silent_s(now_s))}")
        return
    for source in item.detail.get("sources", ()):
        if source.get("trouble"):
            yield ProcessProblem("", name, f"source {source['source']} is waiting: {source['trouble']}")
    for thing, why in item.detail.get("refused", {}).items():
        yield ProcessProblem(REFUSED, thing, f"is not served: {why}")
    if item.detail.get("log") is not None:
        yield ProcessProblem(LOG, name, f"cannot write the prediction log: {item.detail['log']}")


_MB = 1_000_000
_MOST_READ = 1_000_000_000  # bytes of packages
_RECENT_US = 3_600_000_000  # an append that runs now may have stored its object already
_LATER = "do nothing: an append was interrupted, and `skewless housekeeping` deletes its object after a day"


def check_logs(state: ProjectState) -> list[CheckFinding]:
    """Return a finding for each kind of log; reads all segments."""
    try:
        partitions = Catalog(state.database).partitions()
    except StoreError as error:
        return [from_error("files of logs", error)]
    kinds = {folder: [name for name in partitions if _folder(name) == folder] for folder in LOG_FOLDERS}
    findings = [_judge(state, folder, names) for folder, names in kinds.items() if names]
    findings += _judge_runs(state) if partitions else []
    corrupt = sorted((state / "spool").glob(f"*/*{CORRUPT}"))
    if corrupt:
        detail = f"{count_text(len(corrupt), 'file')} cannot be read and is not in the log, such as {corrupt[0]}"
        findings.append(doubt("spooled files", detail, "restore or delete them"))
    return findings


def _judge_runs(state: ProjectState) -> list[CheckFinding]:
    ledger = RunLedger(state.database)
    try:
        ledger.check_all()
    except StoreError as error:
        return [from_error("ledger of runs", error)]
    return [good("ledger of runs", f"{count_text(ledger.last_run(), 'run')}, unchanged")]


def check_package_objects(state: ProjectState) -> list[CheckFinding]:
    """Return a finding for the packages in a bucket: all objects exist, and the bytes of the latest are unchanged.

    Reads at most a gigabyte, latest versions first. Without a bucket, packages are in the state folder, and their
    hashes are compared whenever they are opened.
    """
    packages, name = PackageFolder.of(state), "files of packages"
    if packages.shared is None:
        return []
    try:
        objects = packages.list_objects()
        sizes = {item.name: item.size for item in state.storage.list_objects("packages")}
        for stored in objects:
            if sizes.get(stored.name) != stored.size:
                state.storage.verify(stored)  # says what is wrong with it
        ends = accumulate(stored.size for stored in objects)
        latest = [stored for stored, end in zip(objects, ends, strict=True) if end <= _MOST_READ]
        for stored in latest:
            state.storage.verify(stored)
    except StoreError as error:
        return [from_error(name, error)]
    total = sum(stored.size for stored in objects) / _MB
    compared = "unchanged"
    if len(latest) < len(objects):
        compared = f"the latest {len(latest):,} unchanged, the others only listed"
    return [good(name, f"{count_text(len(objects), 'file')}, {total:,.1f} MB, {compared}")] if objects else []


def _folder(partition: str) -> str:
    return partition if partition in LOG_FOLDERS else "log"


def _judge(state: ProjectState, folder: str, partitions: list[str]) -> CheckFinding:
    name, catalog = f"files of {folder}", Catalog(state.database)
    try:
        ends = {partition: catalog.next_seq(partition) - 1 for partition in partitions}
        listed = {partition: catalog.segments(partition) for partition in partitions}
        for partition, found in listed.items():
            check_holes(partition, found, 0, ends[partition])
        segments = [segment for found in listed.values() for segment in found]
        for segment in segments:
            state.storage.verify(segment.stored)
        orphans = catalog.find_orphans(state.storage, folder, int(time.time() * 1e6) - _RECENT_US)
    except StoreError as error:
        return from_error(name, error)
    size = sum(segment.stored.size for segment in segments)
    detail = f"{count_text(len(segments), 'file')}, {size / _MB:,.1f} MB, unchanged"
    if orphans:
        return doubt(name, f"{detail}; {count_text(len(orphans), 'object')} of no log, such as {orphans[0]}", _LATER)
    return good(name, detail)
