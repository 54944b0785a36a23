"""Read and write the applied plan, and check that definitions and registry have not changed since."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skewless.contract.errors import RequestError, StalePlanError, StoreError
from skewless.contract.names import check_known
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.infra.storage.durable import make_folder
from skewless.infra.storage.numbered_files import NumberedFiles
from skewless.infra.storage.project_state import ProjectState
from skewless.infra.telemetry.logger import EventLogger

EXPECTATIONS = "expectations.py"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class AppliedPlan:
    """The applied plan.

    Args:
        plan: the feature plan.
        models: the specs of all models.
        applied_us: when it was applied, UTC microseconds.
        registry: Feast's registry file, relative to the repo.
        registry_sha256: SHA-256 of the registry file after the apply.
        files: SHA-256 at the apply of each definition file, by path relative to the repo: the Python files of its top
            folder, and all files that the compiler loaded or opened.
    """

    plan: FeaturePlan
    models: tuple[ModelSpec, ...]
    applied_us: int
    registry: str
    registry_sha256: str
    files: Mapping[str, str]

    @property
    def definitions_sha256(self) -> str:
        """Return a hash of the definition files at the apply."""
        return hashlib.sha256(json.dumps(dict(self.files), sort_keys=True).encode()).hexdigest()

    def model(self, name: str) -> ModelSpec:
        """Return a model's spec.

        Raises:
            RequestError: the applied plan has no such model.
        """
        by_name = {spec.name: spec for spec in self.models}
        check_known("model", name, by_name, problem="is not in the applied plan")
        return by_name[name]

    def model_or_only(self, name: str | None) -> ModelSpec:
        """Return a model's spec; without a name, the spec of the only model.

        Raises:
            RequestError: the applied plan has no such model, or the name is missing and there are several models.
        """
        if name is not None:
            return self.model(name)
        if len(self.models) != 1:
            if not self.models:
                raise RequestError("model", "is missing: the project has no model", fix="add a ModelSpec to models.py")
            names = ", ".join(spec.name for spec in self.models)
            raise RequestError("model", "is required: the project has several models", fix=f"use one of: {names}")
        return self.models[0]


def save_applied(state: ProjectState, applied: AppliedPlan) -> None:
    """Make a plan the applied plan, atomically.

    Raises:
        StoreError: the disk failed.
    """
    make_folder(state.folder)
    body: dict[str, Any] = {
        "format": _FORMAT,
        "plan": applied.plan.as_dict(),
        "models": [spec.as_dict() for spec in applied.models],
        "applied_us": applied.applied_us,
        "registry": applied.registry,
        "registry_sha256": applied.registry_sha256,
        "files": dict(applied.files),
    }
    path, temporary = state / "plan.json", state / "plan.json.tmp"
    try:
        with temporary.open("w") as file:
            file.write(json.dumps(body, indent=1))
            # Sync before the rename: a crash then leaves the old plan or the new plan, never an empty file.
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"file {path}", f"cannot be written: {error}", fix="free disk space or rights") from error
    # After the rename, so that the history has only plans that were applied.
    _add_to_history(state, body)


def plan_numbers(state: ProjectState) -> list[int]:
    """Return the numbers of all plans that were ever applied; the last is the number of the applied plan."""
    return _history(state).numbers()


def _add_to_history(state: ProjectState, body: Mapping[str, Any]) -> None:
    """Append a plan to the history, unless it equals the last plan."""
    history = _history(state)
    last = next(history.read_latest_first(), None)
    # Compared as JSON, in which tuples are lists.
    if last is None or any(last[1].get(name) != json.loads(json.dumps(body[name])) for name in ("plan", "models")):
        with suppress(FileExistsError):  # another process has applied a plan meanwhile
            history.append(last[0] + 1 if last else 1, body)


def _history(state: ProjectState) -> NumberedFiles:
    return NumberedFiles(state / "plans", state / "plans.lock", "plan")


def read_applied(state: ProjectState) -> AppliedPlan | None:
    """Return the applied plan, or None before the first apply.

    Raises:
        StalePlanError: the file is corrupt or of another version.
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


def load_applied(repo: Path, state: ProjectState) -> AppliedPlan:
    """Return the applied plan after checking that Feast's registry has not changed since the apply.

    Raises:
        StalePlanError: no plan was applied yet, or the plan is older than the registry.
    """
    applied = read_applied(state)
    if applied is None:
        raise StalePlanError(f"project in {repo}", "has no applied plan", fix="run `skewless apply`")
    sha256 = hash_file(repo / applied.registry)
    if sha256 != applied.registry_sha256:
        raise StalePlanError(
            f"plan {applied.plan.hash}",
            "is older than the Feast registry",
            value=f"{applied.registry} {sha256[:12]}",
            fix="run `skewless plan` to see the difference, then `skewless apply`",
        )
    return applied


class AppliedPlanReader:
    """Reads the applied plan of a project, and caches it until the file changes; threads may share it.

    Args:
        state: the project's state folder.
    """

    def __init__(self, state: ProjectState) -> None:
        self._state = state
        self._cached: tuple[tuple[int, int], FeaturePlan] | None = None

    def read(self) -> FeaturePlan:
        """Return the plan.

        Raises:
            StalePlanError: no plan was applied yet, or the file is corrupt.
        """
        path = self._state / "plan.json"
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise _missing_error(path) from None
        # Each apply renames a new file into place, so the inode changes even within one tick of the clock.
        version, cached = (stat.st_mtime_ns, stat.st_ino), self._cached
        if cached is None or cached[0] != version:
            applied = read_applied(self._state)
            if applied is None:
                raise _missing_error(path)
            self._cached = cached = (version, applied.plan)
        return cached[1]

    def hash(self) -> str:
        """Return the plan's hash; empty if no plan was applied, or the file is corrupt."""
        try:
            return self.read().hash
        except StalePlanError:
            return ""


def _missing_error(path: Path) -> StalePlanError:
    return StalePlanError(f"file {path}", "is missing", fix="run `skewless apply`")


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex; a missing file counts as empty."""
    return hashlib.sha256(path.read_bytes() if path.exists() else b"").hexdigest()


def hash_definition_files(repo: Path, loaded: Iterable[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of each definition file, by path relative to the repo; missing files are skipped.

    Args:
        loaded: files that the compiler loaded or opened; the Python files of the repo's top folder are always included.
    """
    names = {path.name for path in repo.glob("*.py")}.union(loaded)
    return {name: hash_file(repo / name) for name in sorted(names) if (repo / name).is_file()}


def find_edited_files(repo: Path, applied: AppliedPlan) -> list[str]:
    """Return the definition files that were added, changed or removed since the apply, sorted.

    ``expectations.py`` is not among them: each validation reads it, so it needs no apply.
    """
    current = hash_definition_files(repo, applied.files)
    names = {*current, *applied.files} - {EXPECTATIONS}
    return sorted(name for name in names if current.get(name) != applied.files.get(name))


def load_current(repo: Path, state: ProjectState) -> AppliedPlan:
    """Return the applied plan as ``load_applied``; log a warning if the definitions have changed since the apply.

    Raises:
        StalePlanError: no plan was applied yet, or the registry has changed.
    """
    applied = load_applied(repo, state)
    files = find_edited_files(repo, applied)
    if files:
        fix = "run `skewless plan` to see the changes, then `skewless apply`"
        EventLogger().warning("definitions_changed", files=files, fix=fix)
    return applied
