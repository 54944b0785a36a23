"""The decisions about a version."""

from __future__ import annotations

from typing import Any

from skewless.infra.models.packages.store import Decisions


def last_decision(decisions: Decisions, model: str, version: str) -> dict[str, Any] | None:
    """Return the last decision about a version."""
    return next((each for each in decisions.read_latest_first(model) if each["version"] == version), None)
