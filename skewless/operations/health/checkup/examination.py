"""The complete checkup: a check comes before the checks that its failure would hide."""

from __future__ import annotations

from pathlib import Path

from skewless.contract.errors import SkewlessError
from skewless.operations.health.checkup.finding import CheckupFinding, from_error
from skewless.operations.health.checkup.packages import (
    check_packages,
    check_plugins,
    check_python,
    check_runtimes,
    check_scoring,
)

_NEEDED = {f"package {name}" for name in ("numpy", "pyarrow", "pydantic", "redis", "structlog")}


def examine(repo: Path, *, deep: bool = False) -> list[CheckupFinding]:
    """Return all findings; a missing package skips the checks that need it.

    Args:
        deep: also try peers, rights and predictions; what that writes, it removes.
    """
    findings = [check_python(), *check_packages()]
    if any(finding.verdict == "fail" and finding.name in _NEEDED for finding in findings):
        return findings
    findings += [*check_runtimes(), *check_plugins()]
    from skewless.contract.settings import load_settings
    from skewless.infra.models.packages.store import PackageStore
    from skewless.infra.platform.storage.project_state import ProjectState
    from skewless.operations.health.checkup.machine import (
        check_disk,
        check_memory,
        check_port,
        check_store,
        check_trust,
        check_windows,
        machine_memory,
    )
    from skewless.operations.health.checkup.project import (
        check_logs,
        check_package_objects,
        check_plan,
        check_processes,
        check_server,
    )
    from skewless.operations.health.server_status import running_server

    repo = repo.resolve()
    try:
        settings = load_settings(repo)
    except SkewlessError as error:
        return [*findings, from_error("settings", error)]
    state = ProjectState.of(repo, settings)
    server = running_server(state)
    findings = [
        *findings,
        check_disk(state.folder),
        *check_trust(state, settings),
        check_memory(settings.memory_limit, machine_memory()),
        *check_store(state.folder, settings.redis_url, settings.skew_limit_ms),
        check_port(settings.host, settings.port, server["url"] if server else None),
        check_plan(repo, state),
        *check_logs(state),
        *check_package_objects(state),
        *check_processes(state),
        *(check_server(server["url"]) if server else ()),
        *check_windows(state, settings),
        *check_scoring(PackageStore.of(state, settings), settings.second_runtime),
    ]
    if deep:
        from skewless.operations.health.checkup.deep import examine_deeply

        findings += examine_deeply(repo, state, settings, server["url"] if server else None)
    return findings
