"""The project: whether the applied plan is current."""

from __future__ import annotations

from pathlib import Path

from skewless.contract.errors import SkewlessError
from skewless.infra.storage.project_state import ProjectState
from skewless.operations.checkup.finding import CheckupFinding, bad, doubt, from_error, good
from skewless.operations.status import plan_state
from skewless.workspace import CONFIG_FILE


def check_plan(repo: Path, state: ProjectState) -> CheckupFinding:
    """Return whether a plan is applied, and whether the definitions have changed since."""
    from skewless.infra.plans.applied_plan import read_applied

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
    state_text = plan_state(repo, state, applied)
    detail = f"{applied.plan.hash}, {state_text}"
    if state_text.startswith("registry"):
        return bad(name, detail, "run `skewless plan` to see the difference, then `skewless apply`")
    if state_text.startswith("changed"):
        return doubt(name, detail, "run `skewless plan`, then `skewless apply`")
    return good(name, detail)
