"""Read and write the applied plan, and check that definitions and registry have not changed since."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from skewless.contract.decisions import DecisionStream
from skewless.contract.errors import ConflictError, DefinitionError, RequestError, StalePlanError, StoreError
from skewless.contract.names import check_known
from skewless.contract.plan import FeaturePlan
from skewless.contract.spec import ModelSpec
from skewless.infra.platform.storage.documents import Records
from skewless.infra.platform.storage.leases import Lease, Leases
from skewless.infra.platform.storage.project_state import ProjectState
from skewless.infra.platform.telemetry.logger import EventLogger

EXPECTATIONS = "expectations.py"
RegistryState = Literal["current", "missing", "outdated", "foreign"]
_FORMAT = 1
_NAME = "applied"
# Registries of earlier applies that are still known; each comparison reads their plans.
_MOST_REGISTRIES = 100
_log = EventLogger()


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
        decisions: the decision streams.
    """

    plan: FeaturePlan
    models: tuple[ModelSpec, ...]
    applied_us: int
    registry: str
    registry_sha256: str
    files: Mapping[str, str]
    decisions: tuple[DecisionStream, ...] = ()

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


@contextmanager
def hold_apply(state: ProjectState) -> Iterator[Lease]:
    """Hold the lease of an apply during the block.

    Raises:
        ConflictError: another process applies a plan.
    """
    leases = Leases(state.database)
    with leases.try_hold("plan") as lease:
        if lease is None:
            holder, fix = leases.read_holder("plan"), "wait until it has ended, then run `skewless plan`"
            raise ConflictError("plan", "is being applied by another process", value=holder, fix=fix)
        yield lease


def save_applied(state: ProjectState, applied: AppliedPlan, number: int, lease: Lease) -> None:
    """Make a plan the applied plan, atomically, unless it is already; the plans before it remain as its history.

    Args:
        number: that follows the number of the applied plan at the begin of the apply.
        lease: of the apply.

    Raises:
        DefinitionError: the plan or a model has a number that JSON does not have; nothing was changed.
        ConflictError: another process has applied a plan meanwhile; nothing was changed.
        StoreError: the database is unavailable; nothing was changed.
    """
    body: dict[str, Any] = {
        "format": _FORMAT,
        "plan": applied.plan.as_dict(),
        "models": [spec.as_dict() for spec in applied.models],
        "applied_us": applied.applied_us,
        "registry": applied.registry,
        "registry_sha256": applied.registry_sha256,
        "files": dict(applied.files),
        "decisions": [item.as_dict() for item in applied.decisions],
    }
    try:
        body = json.loads(json.dumps(body, allow_nan=False))  # in JSON, tuples are lists
    except ValueError as error:
        fix = "use a finite number, or remove it"
        raise DefinitionError("definitions", "have a number that is infinite or NaN", fix=fix) from error
    records = _records(state)
    with state.database.transaction():
        Leases(state.database).check(lease)
        latest = records.latest(_NAME)
        if latest is None or {**latest[1], "applied_us": 0} != {**body, "applied_us": 0}:
            records.append(_NAME, number, body)


def export_applied(state: ProjectState) -> dict[str, Any]:
    """Return the applied plan as JSON for a machine without the definitions, whose files are not among it.

    Raises:
        StalePlanError: no plan was applied yet.
        StoreError: the database is unavailable.
    """
    latest = _records(state).latest(_NAME)
    if latest is None:
        raise StalePlanError("project", "has no applied plan", fix="run `skewless apply`")
    return {**latest[1], "files": {}}


def import_applied(state: ProjectState, body: Mapping[str, Any]) -> None:
    """Make an exported plan the applied plan of a state that has none.

    Raises:
        StalePlanError: it cannot be read.
        ConflictError: the state has a plan.
        StoreError: the database is unavailable.
    """
    _decode(1, body)
    _records(state).append(_NAME, 1, dict(body))


def read_plan_number(state: ProjectState) -> int:
    """Return the number of the applied plan, which increases with each apply that changes something; 0: none."""
    return _records(state).latest_number(_NAME)


def read_applied(state: ProjectState) -> AppliedPlan | None:
    """Return the applied plan, or None before the first apply.

    Raises:
        StalePlanError: it is corrupt or of another version.
        StoreError: the database is unavailable.
    """
    latest = _records(state).latest(_NAME)
    return None if latest is None else _decode(*latest)


def read_valid(state: ProjectState) -> AppliedPlan | None:
    """Return the applied plan; None: there is none, or it cannot be read and the next apply replaces it."""
    try:
        return read_applied(state)
    except StalePlanError:
        return None


def read_plan_bodies(
    state: ProjectState, *, most: int, before: int | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and JSON of the latest applied plans with smaller numbers than ``before``, latest first."""
    yield from _records(state).read_latest_first(_NAME, most, before)


def _decode(number: int, body: Any) -> AppliedPlan:  # noqa: ANN401 - JSON
    try:
        return AppliedPlan(
            plan=FeaturePlan.from_dict(body["plan"]),
            models=tuple(ModelSpec.from_dict(item) for item in body["models"]),
            files=dict(body["files"]),
            decisions=tuple(DecisionStream.from_dict(item) for item in body["decisions"]),
            **{name: body[name] for name in ("applied_us", "registry", "registry_sha256")},
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StalePlanError(
            f"applied plan {number}", f"cannot be read: {error}", fix="run `skewless apply` again"
        ) from error


def _records(state: ProjectState) -> Records:
    return Records(state.database, "plan")


def read_registry_state(repo: Path, state: ProjectState, applied: AppliedPlan) -> RegistryState:
    """Compare Feast's registry file on this machine with the applied plan.

    Each machine may have a registry file of its own: an apply on another machine does not write it.

    Returns:
        ``missing``: no apply was on this machine; ``outdated``: an earlier apply wrote it; ``foreign``: another program
        has changed it.
    """
    path = repo / applied.registry
    sha256 = hash_file(path)
    if sha256 == applied.registry_sha256:
        return "current"
    if not path.is_file():
        return "missing"
    for _, body in _records(state).read_latest_first(_NAME, most=_MOST_REGISTRIES):
        if body.get("registry_sha256") == sha256:
            # The same definitions, applied on two machines, give two files: they contain times.
            same = body.get("plan") == json.loads(json.dumps(applied.plan.as_dict()))
            return "current" if same else "outdated"
    return "foreign"


def read_replaced(repo: Path, state: ProjectState, applied: AppliedPlan, *, by_registry: bool) -> Iterator[AppliedPlan]:
    """Yield earlier plans that were replaced, latest first; ``by_registry``: those whose registry is this machine's."""
    sha256 = hash_file(repo / applied.registry)
    bodies = _records(state).read_latest_first(_NAME, _MOST_REGISTRIES, read_plan_number(state))
    for number, body in bodies:
        if not by_registry or body.get("registry_sha256") == sha256:
            with suppress(StalePlanError):  # one of another release is none that this checkout has
                yield _decode(number, body)


class AppliedPlanReader:
    """Reads the applied plan of a project, again after an apply; threads may share it.

    While the database is unavailable, it keeps the last plan.

    Args:
        state: the project's state.
        interval_s: time between two queries of the database; 0: each read queries it.
    """

    def __init__(self, state: ProjectState, interval_s: float = 0.0) -> None:
        self._state = state
        self._interval_s = interval_s
        self._cached: tuple[int, FeaturePlan] | None = None
        self._read_at = -math.inf
        self._is_away = False

    def read(self, *, now: bool = False) -> FeaturePlan:
        """Return the plan.

        Args:
            now: query the database even if the interval has not passed.

        Raises:
            StalePlanError: no plan was applied yet, or it is corrupt.
            StoreError: the database is unavailable, and no plan was read before.
        """
        cached, at = self._cached, time.monotonic()
        if cached is not None and not now and at < self._read_at + self._interval_s:
            return cached[1]
        try:
            cached, self._is_away = self._read_changed(cached), False
        except StoreError as error:
            if cached is None:
                raise
            if not self._is_away:
                _log.warning("plan_not_read", error=str(error), effect="the last plan stays in use")
            self._is_away = True
        self._cached, self._read_at = cached, at
        return cached[1]

    def hash(self) -> str:
        """Return the plan's hash; empty if no plan was applied, or it cannot be read."""
        try:
            return self.read().hash
        except (StalePlanError, StoreError):
            return ""

    def _read_changed(self, cached: tuple[int, FeaturePlan] | None) -> tuple[int, FeaturePlan]:
        if cached is not None and cached[0] == read_plan_number(self._state):
            return cached
        latest = _records(self._state).latest(_NAME)
        if latest is None:
            raise StalePlanError("project", "has no applied plan", fix="run `skewless apply`")
        return latest[0], _decode(*latest).plan


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hex; a missing file counts as empty."""
    return hashlib.sha256(path.read_bytes() if path.exists() else b"").hexdigest()


def hash_definition_files(repo: Path, loaded: Iterable[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of each definition file, by path relative to the repo; missing files are skipped.

    Args:
        loaded: modules that the compiler loaded; the Python files of the repo's top folder are always included.
    """
    names = {path.name for path in repo.glob("*.py")}.union(loaded)
    return {name: hash_file(repo / name) for name in sorted(names) if (repo / name).is_file()}


def find_edited_files(repo: Path, applied: AppliedPlan) -> list[str]:
    """Return the definition files that were added, changed or removed since the apply, sorted.

    ``expectations.py`` is not among them: each validation reads it, so it needs no apply.
    """
    current = hash_definition_files(repo, applied.files)
    if not current:  # the folder is a bundle, which has no definitions
        return []
    names = {*current, *applied.files} - {EXPECTATIONS}
    return sorted(name for name in names if current.get(name) != applied.files.get(name))


def load_current(repo: Path, state: ProjectState) -> AppliedPlan:
    """Return the applied plan after checking that no other program has changed Feast's registry.

    Logs a warning if the definitions have changed since the apply.

    Raises:
        StalePlanError: no plan was applied yet, or the plan is older than the registry.
        StoreError: the database is unavailable.
    """
    applied = read_applied(state)
    if applied is None:
        raise StalePlanError(f"project in {repo}", "has no applied plan", fix="run `skewless apply`")
    if read_registry_state(repo, state, applied) == "foreign":
        raise StalePlanError(
            f"plan {applied.plan.hash}",
            "is older than the Feast registry",
            value=f"{applied.registry} {hash_file(repo / applied.registry)[:12]}",
            fix="run `skewless plan` to see the difference, then `skewless apply`",
        )
    files = find_edited_files(repo, applied)
    if files:
        fix = "run `skewless plan` to see the changes, then `skewless apply`"
        _log.warning("definitions_changed", files=files, fix=fix)
    return applied
