"""Commands whose changes are in the audit log, with what the log says about each."""

from __future__ import annotations

import functools
import inspect
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from skewless.contract.settings import SECRETS, Settings
from skewless.infra.platform.access.audit import AuditLog
from skewless.infra.platform.storage.documents import Records
from skewless.infra.platform.telemetry.redaction import display_url

if TYPE_CHECKING:
    from skewless.workspace import Workspace

P = ParamSpec("P")
T = TypeVar("T")
SETTINGS = "settings"  # records by host
_RUN = "SKEWLESS_RUN"  # set by the scheduler, whose ledger has its runs
# The keys of an erased entity must not outlive it; the others are callbacks and switches.
_UNTOLD = {"entity", "values", "dry_run", "self", "project"}


def _tell_nothing(_: Any) -> Mapping[str, Any]:  # noqa: ANN401 - of any command
    return {}


def audited(
    action: str = "", *, changing: Sequence[str] = (), tell: Callable[[Any], Mapping[str, Any]] = _tell_nothing
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator of a command, a function or a method, that records its changes in the project's audit log.

    Its first argument is a project, or has one as ``project``. A dry run, and a run of the scheduler, are not recorded.

    Args:
        action: name in the log; empty: the function's.
        changing: arguments of which one must be given for a change; without one, the command only shows. Empty: it
            always changes something.
        tell: returns the changes for the log, from the result of the command; only named fields, because a result may
            hold a secret.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def record(*args: P.args, **kwargs: P.kwargs) -> T:
            given = inspect.signature(function).bind(*args, **kwargs).arguments
            changes = not changing or any(given.get(argument) for argument in changing)
            if given.get("dry_run") or _RUN in os.environ or not changes:
                return function(*args, **kwargs)
            first = next(iter(given.values()))
            project: Workspace = getattr(first, "project", first)
            told = _tell(given)
            subject = next((told.pop(key) for key in ("model", "job", "run_id", "name", "models") if key in told), "")
            log = AuditLog(project.state.database)
            with log.record(project.actor, action or function.__name__, subject, told) as result:
                returned = function(*args, **kwargs)
                result.update(tell(returned))
            return returned

        return record

    return decorate


def record_settings(project: Workspace) -> None:
    """Record which settings of this machine have changed since a process last started here; no secret is recorded."""
    host, database = socket.gethostname(), project.state.database
    now, records = show_settings(project.settings), Records(database, SETTINGS)
    latest = records.latest(host)
    before: dict[str, str] = {} if latest is None else latest[1]
    if before != now:
        changed = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        with AuditLog(database).record(project.actor, "settings", host) as result:
            records.add(host, now)
            details = [{"path": name, "before": before.get(name), "after": now.get(name)} for name in changed]
            result["changes"] = [{"action": "change", "kind": "settings", "name": host, "details": details}]


def show_settings(settings: Settings) -> dict[str, str]:
    """Return the settings that are not the defaults, as text without secrets."""
    return {name: _show_setting(name, value) for name, value in settings.model_dump(exclude_defaults=True).items()}


def _show_setting(name: str, value: object) -> str:
    if name not in SECRETS:
        return str(value)
    # The address of a webhook may itself be the secret.
    return display_url(str(value)) if name.endswith(("_url", "_uri")) else "set"


def _tell(given: Mapping[str, Any]) -> dict[str, str]:
    """Return arguments as text: names, numbers and lists of names."""
    told = {}
    for name, value in list(given.items())[1:]:
        if name in _UNTOLD or callable(value) or value is None or value is False:
            continue
        is_list = isinstance(value, list | tuple | set | frozenset)
        told[name] = ", ".join(map(str, value)) if is_list else str(value)
    return told
