"""Applied plans that an apply would not write: edited, unreadable or missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skewless.infra.platform.storage.documents import Records
from skewless.infra.platform.storage.project_state import ProjectState


def edit_plan(state: ProjectState, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply a plan that differs from the applied one."""
    records = Records(state.database, "plan")
    latest = records.latest("applied")
    assert latest is not None
    change(latest[1])
    records.append("applied", latest[0] + 1, latest[1])


def delete_plans(state: ProjectState) -> None:
    """Make the project one without an applied plan."""
    state.database.execute("DELETE FROM records WHERE kind = ?", "plan")
