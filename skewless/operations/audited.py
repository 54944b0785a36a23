"""Commands whose changes are in the audit log, with what the log says about each."""

from __future__ import annotations

import functools
import inspect
import os
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from skewless.contract.settings import SECRETS
from skewless.infra.platform.access.audit import AuditLog
from skewless.infra.platform.storage.documents import Records
from skewless.infra.platform.telemetry.redaction import display_url

if TYPE_CHECKING:
    from skewless.workspace import Workspace

P = ParamSpec("P")
T = TypeVar("T")
_MOST_CHANGES = 200
_RUN = "SKEWLESS_RUN"  # set by the scheduler, whose ledger has its runs
# Arguments that say that a command changes something; without one of them, these commands only show.
_CHANGING = {"alerts": ("resolve",), "rollout": ("begin", "step"), "triggers": ("start",)}
# The keys of an erased entity must not outlive it; the others are callbacks and switches.
_UNTOLD = {"entity", "values", "dry_run", "self", "project"}


def audited(function: Callable[P, T], action: str = "") -> Callable[P, T]:
    """Return a command, a function or a method, that writes to the audit log of its project what it changes.

    Its first argument is a project, or has one as ``project``. A dry run, and a run of the scheduler, are not recorded.

    Args:
        action: name in the log; empty: the function's.
    """
    name = action or function.__name__

    @functools.wraps(function)
    def record(*args: P.args, **kwargs: P.kwargs) -> T:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        if given.get("dry_run") or _RUN in os.environ or not _changes(name, given):
            return function(*args, **kwargs)
        first = next(iter(given.values()))
        project: Workspace = getattr(first, "project", first)
        told = _tell(given)
        subject = next((told.pop(key) for key in ("model", "job", "run_id", "name", "models") if key in told), "")
        with AuditLog(project.state.database).record(project.actor, name, subject, told) as result:
            returned = function(*args, **kwargs)
            result.update(_result(name, returned))
        return returned

    return record


def record_settings(project: Workspace) -> None:
    """Record which settings of this machine have changed since a process last started here; no secret is recorded."""
    host, database = socket.gethostname(), project.state.database
    now = {
        name: _show_setting(name, value) for name, value in project.settings.model_dump(exclude_defaults=True).items()
    }
    records = Records(database, "settings")
    latest = records.latest(host)
    before: dict[str, str] = {} if latest is None else latest[1]
    if before != now:
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        with AuditLog(database).record(project.actor, "settings", host) as result:
            records.add(host, now)
            details = [{"path": name, "before": before.get(name), "after": now.get(name)} for name in changed]
            result["changes"] = [{"action": "change", "kind": "settings", "name": host, "details": details}]


def _show_setting(name: str, value: object) -> str:
    if name not in SECRETS:
        return str(value)
    # The address of a webhook may itself be the secret.
    return display_url(str(value)) if name.endswith(("_url", "_uri")) else "set"


def _changes(name: str, given: Mapping[str, Any]) -> bool:
    return name not in _CHANGING or any(given.get(argument) for argument in _CHANGING[name])


def _tell(given: Mapping[str, Any]) -> dict[str, str]:
    """Return arguments as text: names, numbers and lists of names."""
    told = {}
    for name, value in list(given.items())[1:]:
        if name in _UNTOLD or callable(value) or value is None or value is False:
            continue
        is_list = isinstance(value, list | tuple | set | frozenset)
        told[name] = ", ".join(map(str, value)) if is_list else str(value)
    return told


def _result(name: str, returned: Any) -> dict[str, Any]:  # noqa: ANN401 - of any command
    """Return what a command has changed, for the log; only named fields, because a result may hold a secret."""
    if name == "apply":
        body = returned.as_dict()
        return {"plan": body["plan"], "changes": body["changes"][:_MOST_CHANGES]}
    if name == "keys.add":
        return dict(returned.key.as_dict())
    if name == "promote":
        refusal = returned.refusal
        refused = {} if refusal is None else {"refused": refusal.problem}
        return {"before": returned.champion, "after": returned.version, "way": returned.way, **refused}
    if name in {"rollback", "rollout"}:
        outcomes = returned if isinstance(returned, list) else [returned]
        return {"outcomes": [{"model": item.model, "change": item.change} for item in outcomes]}
    if name.startswith("runs."):
        return {"run": str(returned)}
    return {}
