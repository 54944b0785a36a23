"""Which definitions an apply would set back: an older checkout lacks what others have applied since."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from skewless.contract.changes import Change, compare_decisions, compare_models, compare_plans
from skewless.contract.errors import ConflictError
from skewless.infra.definitions.compiler.compiled_repo import CompiledRepo
from skewless.infra.definitions.plans.applied_plan import AppliedPlan, read_registry_state, read_replaced
from skewless.infra.platform.storage.project_state import ProjectState

NO_PLAN = "none"  # expected where nothing is applied
_MOST_NAMES = 5
Declared = CompiledRepo | AppliedPlan


def compare_all(old: Declared | None, new: Declared) -> list[Change]:
    """Return the changes of plan, models and decision streams."""
    changes = compare_plans(old.plan if old else None, new.plan)
    changes += compare_models(old.models if old else (), new.models)
    return changes + compare_decisions(old.decisions if old else (), new.decisions)


def find_reverts(repo: Path, state: ProjectState, applied: AppliedPlan | None, compiled: CompiledRepo) -> list[str]:
    """Return kind and name of the definitions that another checkout has applied, and that this one would set back.

    Feast's registry of this checkout says which plan it applied last. What others have changed since, and this checkout
    has not, it has never seen. A checkout without a registry is known only if its definitions are those of an earlier
    plan.
    """
    if applied is None or (known := read_registry_state(repo, state, applied)) == "current":
        return []
    for base in read_replaced(repo, state, applied, by_registry=known == "outdated"):
        own = {(change.kind, change.name) for change in compare_all(base, compiled)}
        if known == "outdated" or not own:
            others = [(change.kind, change.name) for change in compare_all(base, applied)]
            return [f"{kind} {name!r}" for kind, name in others if (kind, name) not in own]
    return []


def check_expected(applied: AppliedPlan | None, expect: str | None, reverts: Sequence[str]) -> None:
    """Check that an apply replaces the plan that its caller expects, or sets nothing back.

    Args:
        expect: hash of the plan that it may replace, whatever that sets back; ``none``: no plan.

    Raises:
        ConflictError: it would replace another plan, or set back what another checkout has applied.
    """
    found = NO_PLAN if applied is None else applied.plan.hash
    if expect is not None:
        if expect != found:
            fix = "run `skewless plan`, and repeat with the plan that it replaces if the changes are right"
            raise ConflictError("applied plan", f"is {found}, not the expected one", value=expect, fix=fix)
    elif reverts:
        names = ", ".join(reverts[:_MOST_NAMES]) + (", ..." if len(reverts) > _MOST_NAMES else "")
        fix = f"update this checkout; or set them back on purpose with `skewless apply --expect {found}`"
        raise ConflictError("apply", f"would set back what another checkout has applied: {names}", fix=fix)
