"""The definitions of one view in all applied plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skewless.contract.errors import StalePlanError
from skewless.infra.plans.applied_plan import read_plan_bodies
from skewless.infra.storage.project_state import ProjectState


@dataclass(frozen=True, kw_only=True)
class StoredDefinition:
    """The definition of a view in one applied plan.

    Args:
        number: of the plan.
        applied_us: when the plan was applied, UTC microseconds.
        definition: as plain JSON values; None: the plan has no such view.
    """

    number: int
    applied_us: int
    definition: Mapping[str, Any] | None


def read_definitions(
    state: ProjectState, view: str, *, most: int, before: int | None = None
) -> Iterator[StoredDefinition]:
    """Yield the definition of a view in the latest applied plans, latest first.

    Args:
        view: its name.
        most: number of plans that are read.
        before: only plans with smaller numbers; None: all.

    Raises:
        StalePlanError: a plan is corrupt.
        StoreError: the database is unavailable.
    """
    for number, body in read_plan_bodies(state, most=most, before=before):
        try:
            views = [*body["plan"]["views"], *body["plan"].get("windows", ())]
            found = next((item for item in views if item["name"] == view), None)
            yield StoredDefinition(number=number, applied_us=int(body["applied_us"]), definition=found)
        except (ValueError, KeyError, TypeError) as error:
            fix = "restore the database from a backup"
            raise StalePlanError(f"applied plan {number}", f"cannot be read: {error}", fix=fix) from error
