"""The applied plan: what ``skewless apply`` last put in force, and whether it still is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from skewless.contract.errors import RequestError, StalePlanError, StoreError
from skewless.contract.names import check_known
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.infra.storage.durable import make_folder
from skewless.infra.storage.numbered_files import NumberedFiles

EXPECTATIONS = "expectations.py"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class AppliedPlan:
    """The plan in force.

    Args:
        registry: Feast's registry file, relative to the repo.
        registry_sha256: its content when the plan was applied.
        files: SHA-256 of each of the repo's Python files then, by name.
    """

    plan: FeaturePlan
    models: tuple[ModelSpec, ...]
    applied_us: int
    registry: str
    registry_sha256: str
    files: Mapping[str, str]

    @property
    def definitions_sha256(self) -> str:
        """Return the identity of the repo's Python files as they were when the plan was applied."""
        return hashlib.sha256(json.dumps(dict(self.files), sort_keys=True).encode()).hexdigest()

    def model(self, name: str) -> ModelSpec:
        """Return a model's spec.

        Raises:
            RequestError: the plan in force does not hold it.
        """
        known = {spec.name: spec for spec in self.models}
        check_known("model", name, known, problem="is not in the applied plan")
        return known[name]

    def model_or_only(self, name: str | None) -> ModelSpec:
        """Return a model's spec; without a name that of the only model.

        Raises:
            RequestError: the plan in force does not hold it, or it has not just one.
        """
        if name is not None:
            return self.model(name)
        if len(self.models) != 1:
            fix = f"use one of: {', '.join(spec.name for spec in self.models) or '-'}"
            raise RequestError("model", "is not named, and there is not just one", fix=fix)
        return self.models[0]


def save_applied(state: Path, applied: AppliedPlan) -> None:
    """Put a plan in force, whole or not at all.

    Raises:
        StoreError: the disk refused.
    """
    make_folder(state)
    body: dict[str, Any] = {
        "format": _FORMAT,
        "plan": applied.plan.as_dict(),
        "models": [spec.as_dict() for spec in applied.models],
        "applied_us": applied.applied_us,
        "registry": applied.registry,
        "registry_sha256": applied.registry_sha256,
        "files": dict(applied.files),
    }
    place, temporary = state / "plan.json", state / "plan.json.tmp"
    try:
        with temporary.open("w") as file:
            file.write(json.dumps(body, indent=1))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(place)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"file {place}", f"cannot be written: {error}", fix="free disk space or rights") from error
    _remember(state, body)


def plan_numbers(state: Path) -> list[int]:
    """Return the numbers of the plans that were put in force, the last one being that of the plan in force."""
    return _history(state).numbers()


def _remember(state: Path, body: Mapping[str, Any]) -> None:
    """Add a plan to those that were in force, unless it is the last one again."""
    history = _history(state)
    last = next(history.read_latest_first(), None)
    if last is None or any(last[1].get(name) != json.loads(json.dumps(body[name])) for name in ("plan", "models")):
        with suppress(FileExistsError):  # somebody has applied another one meanwhile
            history.append(last[0] + 1 if last else 1, body)


def _history(state: Path) -> NumberedFiles:
    return NumberedFiles(state / "plans", state / "plans.lock", "plan")


def read_applied(state: Path) -> AppliedPlan | None:
    """Return the plan in force, or None before the first apply.

    Raises:
        StalePlanError: the file is damaged or of another version.
    """
    path = state / "plan.json"
    if not path.exists():
        return None
    try:
        body = json.loads(path.read_text())
        return AppliedPlan(
            plan=FeaturePlan.from_dict(body["plan"]),
            models=tuple(ModelSpec.from_dict(item) for item in body["models"]),
            files=dict(body.get("files", {})),
            **{name: body[name] for name in ("applied_us", "registry", "registry_sha256")},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StalePlanError(f"file {path}", f"cannot be read: {error}", fix="run `skewless apply` again") from error


def load_applied(repo: Path, state: Path) -> AppliedPlan:
    """Return the plan in force, having checked that Feast's registry has not moved on since.

    Raises:
        StalePlanError: nothing was applied yet, or the plan is older than the registry.
    """
    applied = read_applied(state)
    if applied is None:
        raise StalePlanError(f"project in {repo}", "has no applied plan", fix="run `skewless apply`")
    found = file_sha256(repo / applied.registry)
    if found != applied.registry_sha256:
        raise StalePlanError(
            f"plan {applied.plan.hash}",
            "is older than the Feast registry",
            value=f"{applied.registry} {found[:12]}",
            fix="run `skewless plan` to see the difference, then `skewless apply`",
        )
    return applied


class AppliedPlanReader:
    """Reads the applied plan of a project; threads may share it.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._known: tuple[tuple[int, int], FeaturePlan] | None = None

    def read(self) -> FeaturePlan:
        """Return the plan.

        Raises:
            StalePlanError: nothing was applied yet, or the file is damaged.
        """
        path = self._state / "plan.json"
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise _missing(path) from None
        version, known = (stat.st_mtime_ns, stat.st_ino), self._known
        if known is None or known[0] != version:
            applied = read_applied(self._state)
            if applied is None:
                raise _missing(path)
            self._known = known = (version, applied.plan)
        return known[1]

    def hash(self) -> str:
        """Return the plan's hash; empty: there is none, or it is damaged."""
        try:
            return self.read().hash
        except StalePlanError:
            return ""


def _missing(path: Path) -> StalePlanError:
    return StalePlanError(f"file {path}", "is not there", fix="run `skewless apply`")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex; of nothing, where there is no file."""
    return hashlib.sha256(path.read_bytes() if path.exists() else b"").hexdigest()


def definition_files(repo: Path) -> dict[str, str]:
    """Return the SHA-256 of each of the repo's Python files, by name."""
    return {path.name: file_sha256(path) for path in sorted(repo.glob("*.py"))}


def edited_files(repo: Path, applied: AppliedPlan) -> list[str]:
    """Return the Python files that came, changed or went since a plan was applied, sorted.

    ``expectations.py`` is not among them: it is read whenever something is validated, so it needs no apply.
    """
    now = definition_files(repo)
    names = {*now, *applied.files} - {EXPECTATIONS}
    return sorted(name for name in names if now.get(name) != applied.files.get(name))


def load_current(repo: Path, state: Path) -> AppliedPlan:
    """Return the plan in force, as ``load_applied``; log a warning where the definitions have changed since.

    Raises:
        StalePlanError: nothing was applied, or the registry has moved on.
    """
    applied = load_applied(repo, state)
    files = edited_files(repo, applied)
    if files:
        fix = "`skewless plan` shows what; `skewless apply`"
        structlog.get_logger().warning("definitions_changed", files=files, fix=fix)
    return applied
