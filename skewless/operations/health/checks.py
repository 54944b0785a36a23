"""The checks of ``skewless doctor``, in order: a check comes before the checks that its failure would hide.

A new check is a function that returns findings, and its line in one of these lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from skewless.contract.errors import SkewlessError
from skewless.operations.health.checkup import packages
from skewless.operations.health.finding import CheckFinding, from_error

if TYPE_CHECKING:
    from skewless.contract.plan import FeaturePlan
    from skewless.contract.settings import Settings
    from skewless.infra.platform.storage.project_state import ProjectState

_NEEDED = {f"package {name}" for name in ("numpy", "pyarrow", "pydantic", "redis", "structlog")}


def examine(repo: Path, *, deep: bool = False) -> list[CheckFinding]:
    """Return all findings; a missing package skips the checks that need it.

    Args:
        deep: also try peers, rights and predictions; what that writes, it removes.
    """
    findings = [packages.check_python(), *packages.check_packages()]
    if any(finding.verdict == "fail" and finding.name in _NEEDED for finding in findings):
        return findings
    findings += [*packages.check_runtimes(), *packages.check_plugins()]
    from skewless.contract.settings import load_settings
    from skewless.infra.platform.storage.project_state import ProjectState

    repo = repo.resolve()
    try:
        settings = load_settings(repo)
    except SkewlessError as error:
        return [*findings, from_error("settings", error)]
    place = _Examination(repo, ProjectState.of(repo, settings), settings)
    return [*findings, *_check_place(place), *(_check_deeply(place) if deep else ())]


@dataclass(frozen=True)
class _Examination:
    """The facts that the checks of a folder share."""

    repo: Path
    state: ProjectState
    settings: Settings

    @cached_property
    def server_url(self) -> str | None:
        """The URL of this machine's prediction server; None: it does not run."""
        from skewless.operations.health.server_status import running_server

        server = running_server(self.state)
        return server["url"] if server else None

    @cached_property
    def plan(self) -> FeaturePlan | None:
        """The applied plan; None: there is none, or it cannot be read, as the check of the plan reports."""
        from skewless.infra.definitions.plans.applied_plan import read_applied

        try:
            applied = read_applied(self.state)
        except SkewlessError:
            return None
        return None if applied is None else applied.plan


def _check_place(place: _Examination) -> Iterator[CheckFinding]:
    from skewless.infra.models.packages.store import PackageStore
    from skewless.operations.health.checkup import machine, project

    state, settings, url = place.state, place.settings, place.server_url
    yield machine.check_disk(state.folder)
    yield from machine.check_trust(state, settings)
    yield machine.check_memory(settings.memory_limit, machine.machine_memory())
    yield from machine.check_store(state.folder, settings.redis_url, settings.skew_limit_ms)
    yield machine.check_port(settings.host, settings.port, url)
    yield project.check_plan(place.repo, state)
    yield from project.check_logs(state)
    yield from project.check_package_objects(state)
    yield from project.check_processes(state)
    yield from project.check_hosts(state, settings)
    yield from project.check_losses(state, settings)
    yield from project.check_server(url) if url else ()
    yield from machine.check_windows(state, settings)
    yield from packages.check_scoring(PackageStore.of(state, settings), settings.second_runtime)


def _check_deeply(place: _Examination) -> Iterator[CheckFinding]:
    from skewless.operations.health.checkup import deep, peers

    state, settings, url = place.state, place.settings, place.server_url
    yield deep.check_disk_share(state.folder)
    yield deep.check_files(state.folder)
    yield from peers.check_redis(state, settings, place.plan)
    yield from deep.check_stores(state, settings.skew_limit_ms)
    yield from peers.check_streams(place.plan, settings)
    yield from deep.check_certificate(place.repo, settings)
    yield from deep.check_leases(state)
    yield deep.check_spool(state)
    yield from deep.check_predictions(url) if url else ()
